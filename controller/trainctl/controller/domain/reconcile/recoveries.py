"""The record of a recovery: opened at the fault, filled as its parts end, closed at the first new committed step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from trainctl.controller.domain import events
from trainctl.controller.domain.events import EventDraft
from trainctl.controller.domain.job_records import Recovery, RecoveryMarks
from trainctl.controller.domain.job_state import RECOVERIES_KEPT, IslandState, JobState
from trainctl.controller.domain.reconcile.fault import Fault, describe
from trainctl.controller.domain.reconcile.work import Work
from trainctl.core.records.generation import GenerationRecord, Rung
from trainctl.core.units import format_count

_FAULT_CHARACTERS = 600
_WITH_CANDIDATES = 8
"""So many of the newest recoveries keep their candidates: the state is written whole at each change."""


def begin_recovery(work: Work, faults: Sequence[Fault]) -> None:
    """Opens a recovery for these faults, or adds them to the one in progress."""
    what = describe(faults)
    slots = tuple(f.slot for f in faults)
    if work.island.record is None:
        return
    if work.island.marks is None:
        _open(work, what, slots, min(f.at_s for f in faults), planned=False)
        return
    current = work.job.recoveries[-1]
    fault = f"{current.fault}; then {what}"
    fault = fault if len(fault) <= _FAULT_CHARACTERS else f"{fault[:_FAULT_CHARACTERS]} ..."
    longer = replace(current, fault=fault, slots=tuple(sorted({*current.slots, *slots})), planned=False)
    survivors = _survivors(work, slots)
    work.set_island(marks=replace(work.island.marks, survivors=survivors, stopped_s=0.0, booted_s=0.0, committed_s=0.0))
    count = work.job.recovery_count + current.planned
    work.set_job(recoveries=(*work.job.recoveries[:-1], longer), recovery_count=count)


def begin_resize(work: Work, what: str, slots: Sequence[int]) -> None:
    """Opens the record of a change of size that no fault caused."""
    if work.island.marks is None and work.island.record is not None:
        _open(work, what, tuple(slots), work.now_s, planned=True)


def _open(work: Work, what: str, slots: tuple[int, ...], at_s: float, *, planned: bool) -> None:
    at_s = min(max(at_s, work.job.submitted_s), work.now_s)
    marks = RecoveryMarks(faulted_s=at_s, detected_s=work.now_s, survivors=_survivors(work, slots))
    recovery = Recovery(generation=work.island.generation + 1, fault=what, started_s=at_s, slots=slots, planned=planned)
    old = work.job.recoveries
    slim = tuple(replace(r, candidates=()) for r in old[:-_WITH_CANDIDATES])
    recoveries = (*slim, *old[-_WITH_CANDIDATES:], recovery)[-RECOVERIES_KEPT:]
    work.set_island(marks=marks)
    work.set_job(recoveries=recoveries, recovery_count=work.job.recovery_count + (not planned))
    alive = format_count(len(marks.survivors), "worker")
    message = f"{what}; noticed after {work.now_s - at_s:.2f} s, {alive} left alive"
    work.emit(events.RECOVERY_STARTED, "Fault", message, slots=",".join(map(str, slots)))


def _survivors(work: Work, hit: Sequence[int]) -> tuple[int, ...]:
    record = work.island.record
    known = {m.incarnation for m in record.members} if record is not None else set[int]()
    alive = (s for s in work.slots() if s.alive and s.index not in hit)
    return tuple(s.incarnation for s in alive if s.incarnation in known)


def update_recovery(work: Work, **changes: object) -> None:
    """Changes fields of the recovery in progress, if there is one."""
    if work.island.marks is not None and work.job.recoveries:
        latest = replace(work.job.recoveries[-1], **changes)  # type: ignore[arg-type]
        work.set_job(recoveries=(*work.job.recoveries[:-1], latest))


def abandon_recovery(work: Work, why: str) -> None:
    """Closes the recovery in progress without its end; one that was only opened in this pass never began."""
    marks = work.island.marks
    if marks is None or not work.job.recoveries:
        return
    work.set_island(marks=None)
    *earlier, last = work.job.recoveries
    if not last.rung and marks.detected_s == work.now_s:
        work.set_job(recoveries=tuple(earlier), recovery_count=work.job.recovery_count - (not last.planned))
        return
    ended = {"total": max(0.0, work.now_s - last.started_s)}
    closed = replace(last, rung=last.rung or "none", reason=last.reason or why, phases_s=ended)
    work.set_job(recoveries=(*earlier, closed))


def is_new_step(record: GenerationRecord, *, generation: int, step: int) -> bool:
    """Whether a step belongs to the committed generation and lies beyond its target: the first one ends a recovery."""
    return generation == record.generation and step > record.target_step


def finish_recovery(
    state: JobState, island: IslandState, finished_s: float
) -> tuple[JobState, IslandState, tuple[EventDraft, ...]]:
    """Closes the recovery in progress: the first new step is committed. A step of the generation before is none."""
    marks = island.marks
    if marks is None or not marks.committed_s or not state.recoveries:
        return state, island, ()
    recovery = state.recoveries[-1]
    recovery = replace(recovery, phases_s=phase_seconds(marks, finished_s))
    phases = ", ".join(f"{name} {seconds:.2f}" for name, seconds in recovery.phases_s.items() if name != "total")
    took = f"{recovery.phases_s['total']:.2f} s"
    what = f"recovered in {took} after step {recovery.target_step}"
    if recovery.rung == Rung.RESTART:
        what = f"the command runs again after {took}"
    event = EventDraft(
        type=events.RECOVERY_FINISHED,
        reason=recovery.rung.capitalize(),
        message=f"{what} ({phases})",
        fields={"generation": str(recovery.generation), "rung": recovery.rung},
    )
    recoveries = (*state.recoveries[:-1], recovery)
    return replace(state, recoveries=recoveries), replace(island, marks=None), (event,)


def phase_seconds(marks: RecoveryMarks, finished_s: float) -> dict[str, float]:
    """Seconds of each part, in the order they happen; each is what it added, so they add up to ``total``."""
    ends = [marks.faulted_s, marks.detected_s, marks.stopped_s, marks.booted_s, marks.committed_s]
    for index in range(1, len(ends)):
        ends[index] = max(ends[index], ends[index - 1])
    finished_s = max(finished_s, ends[-1])
    left = finished_s - ends[-1]
    rendezvous = min(marks.rebuild_s, left)
    restore = min(marks.restore_s, left - rendezvous)
    return {
        "detect": ends[1] - ends[0],
        "stop": ends[2] - ends[1],
        "boot": ends[3] - ends[2],
        "decide": ends[4] - ends[3],
        "rendezvous": rendezvous,
        "restore": restore,
        "first_step": left - rendezvous - restore,
        "total": finished_s - ends[0],
    }
