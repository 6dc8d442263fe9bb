"""Numbers derived from a job's state, for exporters and the API; nothing here is a decision."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from trainctl.controller.domain.goodput import ettr, totals_s
from trainctl.controller.domain.hang import typical_step_s
from trainctl.controller.domain.job_state import JobState
from trainctl.controller.domain.states import JobPhase, SlotState

TRAINING = frozenset({JobPhase.RUNNING, JobPhase.RECOVERING, JobPhase.RESIZING})
"""Where a speed and a time to go say something."""
STALL_FLOOR_S = 10.0
STALL_STEPS = 5
STALL_FIRST_S = 60.0
"""Without a step so far nobody knows how long one takes."""


def goodput_s(state: JobState, now_s: float) -> Mapping[str, float]:
    """Seconds by bucket; they add up to the job's age, which stops at its end."""
    return totals_s(state.goodput, state.ended_s or now_s)


def lost_s(state: JobState) -> float:
    """Seconds of committed work that roll-backs threw away; never decreases."""
    return state.goodput.lost_us / 1e6


def ettr_of(state: JobState, now_s: float) -> float:
    """Effective training time ratio so far."""
    return ettr(state.goodput, state.ended_s or now_s)


def tokens_per_s(state: JobState, now_s: float) -> float:
    """Tokens per second over the newest steps and what the open one takes longer than they did; 0 unless it trains."""
    recent = state.progress.recent_step_s
    if state.phase not in TRAINING or not recent or sum(recent) <= 0:
        return 0.0
    late_s = max(0.0, now_s - state.progress.updated_s - max(recent))
    return state.progress.step_tokens * len(recent) / (sum(recent) + late_s)


def eta_s(state: JobState, now_s: float) -> float:
    """Seconds to the last step at the newest pace; 0 while there is none."""
    step_s = typical_step_s(state.progress.recent_step_s)
    if state.phase not in TRAINING or step_s is None or stalled_s(state, now_s):
        return 0.0
    return max(0, state.steps - state.progress.step) * step_s


def stalled_s(state: JobState, now_s: float) -> float:
    """Seconds that a running job has committed no step, once that is unusual; 0 before."""
    if state.phase is not JobPhase.RUNNING or not state.steps:
        return 0.0
    recent = state.progress.recent_step_s
    usual_s = max(STALL_FLOOR_S, STALL_STEPS * max(recent)) if recent else STALL_FIRST_S
    without_s = now_s - max(state.progress.updated_s, state.phase_since_s)
    return without_s if without_s > usual_s else 0.0


def members_by_state(state: JobState) -> Mapping[str, int]:
    """Number of workers that are active, in standby (booting or ready) or lost (wanted but not there)."""
    states = Counter(slot.state for island in state.islands for slot in island.slots)
    active = states[SlotState.ACTIVE] + states[SlotState.FINISHED]
    standby = states[SlotState.STARTING] + states[SlotState.READY]
    wanted = state.spec.spec.nodes.target * state.spec.spec.resources.workers_per_node
    return {"active": active, "standby": standby, "lost": max(0, wanted - active - standby)}
