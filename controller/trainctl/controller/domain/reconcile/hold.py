"""A hold: the members of the committed generation wait together at a step boundary, so that no step is open."""

from __future__ import annotations

from collections.abc import Iterator

from trainctl.controller.domain.job_state import Hold
from trainctl.controller.domain.reconcile.work import Work
from trainctl.core.records.step import Phase
from trainctl.core.records.worker import WorkerObserved


def hold(work: Work, why: Hold) -> None:
    """Asks the members to wait at the next boundary. Only a newer generation, or their end, takes it back."""
    work.set_island(hold=why)


def may_hold(work: Work) -> bool:
    """Whether all members train in the committed generation and nothing else is under way."""
    island, job = work.island, work.job
    if island.record is None or not island.entered or island.proposal is not None or job.rollback is not None:
        return False
    return all(s.alive and s.incarnation == m.incarnation for m in island.record.members for s in [work.slot(m.slot)])


def held_step(work: Work) -> int:
    """The step after which members wait, -1 while none does. They all wait after the same one."""
    held = [seen.progress.step for seen in _members(work) if seen is not None and _is_held(work, seen)]
    return max(held, default=-1)


def all_held(work: Work) -> bool:
    """Whether every member waits."""
    return all(_is_held(work, seen) for seen in _members(work))


def _members(work: Work) -> Iterator[WorkerObserved | None]:
    record = work.island.record
    return (work.observed(work.slot(m.slot)) for m in (record.members if record is not None else ()))


def _is_held(work: Work, seen: WorkerObserved | None) -> bool:
    record = work.island.record
    assert record is not None
    return seen is not None and seen.progress.phase is Phase.HELD and seen.progress.generation == record.generation
