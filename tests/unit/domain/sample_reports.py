"""Checkpoints, and reports of them."""

from __future__ import annotations

from trainctl.controller.domain.job_state import JobState
from trainctl.core.records.generation import CheckpointRef
from trainctl.core.records.worker import CheckpointReport


def ref_of(step: int, *, uri: str = "", lineage: int = 1, attempt: str = "") -> CheckpointRef:
    """A checkpoint that lies nowhere."""
    return CheckpointRef(
        uri=uri or f"mem://{step}", step=step, lineage=lineage, attempt=attempt or f"at-{step}", manifest_sha256="0"
    )


def saved(state: JobState, step: int, *, age_s: float, error: str = "") -> CheckpointReport:
    record = state.sole_island.record
    assert record is not None
    return CheckpointReport(
        job_uid=state.uid, island="island-0", generation=record.generation, step=step, lineage=record.lineage,
        ref=None if error else ref_of(step, lineage=record.lineage), error=error, age_s=age_s,
    )  # fmt: skip
