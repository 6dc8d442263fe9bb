"""Numbers derived from a job's state, for exporters and the API; nothing here is a decision."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from trainctl.controller.domain.goodput import ettr, totals_s
from trainctl.controller.domain.hang import typical_step_s
from trainctl.controller.domain.job_state import JobState
from trainctl.controller.domain.states import SlotState


def goodput_s(state: JobState, now_s: float) -> Mapping[str, float]:
    """Seconds by bucket; they add up to the job's age, which stops at its end."""
    return totals_s(state.goodput, state.ended_s or now_s)


def lost_s(state: JobState) -> float:
    """Seconds of committed work that roll-backs threw away; never decreases."""
    return state.goodput.lost_us / 1e6


def ettr_of(state: JobState, now_s: float) -> float:
    """Effective training time ratio so far."""
    return ettr(state.goodput, state.ended_s or now_s)


def tokens_per_s(state: JobState) -> float:
    """Tokens per second over the newest steps; 0 while unknown."""
    recent = state.progress.recent_step_s
    total_s = sum(recent)
    return state.progress.step_tokens * len(recent) / total_s if total_s > 0 else 0.0


def eta_s(state: JobState) -> float:
    """Seconds to the last step at the newest pace; 0 while unknown."""
    step_s = typical_step_s(state.progress.recent_step_s)
    left = max(0, state.steps - state.progress.step)
    return left * step_s if step_s is not None else 0.0


def members_by_state(state: JobState) -> Mapping[str, int]:
    """Number of workers that are active, in standby (booting or ready) or lost (wanted but not there)."""
    states = Counter(slot.state for island in state.islands for slot in island.slots)
    active = states[SlotState.ACTIVE] + states[SlotState.FINISHED]
    standby = states[SlotState.STARTING] + states[SlotState.READY]
    wanted = state.spec.spec.nodes.target * state.spec.spec.resources.workers_per_node
    return {"active": active, "standby": standby, "lost": max(0, wanted - active - standby)}
