"""Which step and figures of a job are shown, and as of when: after a change of leaders they may be old ones. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from trainctl.controller.domain.job_state import JobState
from trainctl.controller.domain.states import TERMINAL
from trainctl.controller.domain.view import ClusterView
from trainctl.core.records.worker import WorkerObserved

CATCHES_UP_STEPS = 64
"""Workers may be so far ahead of their figures at any time; if they are further ahead, those are still on their way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownFigures:
    """What a leader knows of how far a job is.

    Attributes:
        step: the newest one.
        as_of_s: when loss, tokens and pace were the newest ones that a leader had heard of, Unix seconds; 0 before the
            first step.
        stale: those are what the store or a file kept, and newer ones may be waiting at the agents.
        step_stale: so is the step: no agent of the job has reported to this leader.
    """

    step: int
    as_of_s: float
    stale: bool = False
    step_stale: bool = False


def shown_figures(state: JobState, view: ClusterView, *, since_s: float) -> ShownFigures:
    """The newest that is known.

    Steps are telemetry: a leader that takes over knows the last one that happened to be stored with something else. How
    far the workers are now, their agents tell with their first observation; the figures of those steps come later.

    Args:
        state: of the job, with the telemetry of this leader.
        view: what agents have reported to this leader.
        since_s: when it began to lead.
    """
    step, as_of_s = state.progress.step, state.progress.updated_s
    if not _trained_before(state, since_s):
        return ShownFigures(step=step, as_of_s=as_of_s)
    seen = [_step(state, worker) for worker in _observed(state, view)]
    agreed = [island.record.target_step for island in state.islands if island.record is not None]
    newest = max(step, *agreed, *seen, 0)
    if as_of_s >= since_s:
        return ShownFigures(step=newest, as_of_s=as_of_s, stale=newest - step > CATCHES_UP_STEPS)
    unheard = not seen
    return ShownFigures(
        step=newest, as_of_s=as_of_s or state.phase_since_s, stale=unheard or newest > step, step_stale=unheard
    )


def _trained_before(state: JobState, since_s: float) -> bool:
    """Whether workers may have committed steps that were told to an earlier leader, or to none."""
    counts = bool(state.steps or state.progress.step)
    has_workers = any(slot.bound and slot.incarnation for island in state.islands for slot in island.slots)
    return counts and has_workers and state.phase not in TERMINAL and 0.0 < state.started_s < since_s


def _observed(state: JobState, view: ClusterView) -> Iterator[WorkerObserved]:
    for island in state.islands:
        for slot in island.slots:
            seen = view.worker(state.uid, slot.index, slot.incarnation, slot.agent_incarnation) if slot.bound else None
            if seen is not None:
                yield seen


def _step(state: JobState, worker: WorkerObserved) -> int:
    """The last step that the worker voted in the job's generation: what it did in an older one may be given up."""
    generations = [island.record.generation for island in state.islands if island.record is not None]
    return worker.progress.step if worker.progress.generation in generations else 0
