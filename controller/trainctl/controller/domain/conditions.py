"""Conditions: what is true of a job beside its phase."""

from __future__ import annotations

from dataclasses import replace

from trainctl.controller.domain.job_records import Condition
from trainctl.controller.domain.job_state import JobState

DEGRADED = "Degraded"
CHECKPOINT_STALE = "CheckpointStale"


def with_condition(state: JobState, type_: str, holds: bool, now_s: float, *, reason: str, message: str) -> JobState:
    """The job with a condition set; unchanged if it says so already. One that never held is not noted as false."""
    status = "True" if holds else "False"
    old = next((c for c in state.conditions if c.type == type_), None)
    if old is None and not holds:
        return state
    if old is not None and (old.status, old.reason, old.message) == (status, reason, message):
        return state
    since_s = old.since_s if old is not None and old.status == status else now_s
    new = Condition(type=type_, status=status, reason=reason, message=message, since_s=since_s)
    others = tuple(c for c in state.conditions if c.type != type_)
    return replace(state, conditions=(*others, new))
