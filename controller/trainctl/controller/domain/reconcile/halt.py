"""Stopping all workers on request, to pause a job or to give it new ones: saved first, at a step boundary.

Nobody is told to stop before the checkpoint of the very step that all wait after is committed. If a worker is lost
meanwhile, the job recovers as always and the wish, which is persisted, is taken up again when it trains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from trainctl.controller.domain import events
from trainctl.controller.domain.conditions import DEGRADED, with_condition
from trainctl.controller.domain.job_records import HaltKind, HaltRequest
from trainctl.controller.domain.job_state import Cause, Hold
from trainctl.controller.domain.reconcile.hold import held_step, hold, may_hold
from trainctl.controller.domain.reconcile.lifecycle import set_phase
from trainctl.controller.domain.reconcile.propose import abort, open_proposal
from trainctl.controller.domain.reconcile.recoveries import abandon_recovery, begin_resize
from trainctl.controller.domain.reconcile.wishes import where_it_goes_on
from trainctl.controller.domain.reconcile.work import Work
from trainctl.controller.domain.states import JobPhase, SlotState

_PHASES: Mapping[HaltKind, JobPhase] = {HaltKind.PAUSE: JobPhase.PAUSING, HaltKind.RESTART: JobPhase.RESTARTING}


def halt(work: Work) -> bool:
    """Takes the wish as far as it can be now; whether nothing else shall go on in this pass."""
    if work.job.phase is JobPhase.PAUSED:
        return True
    wish = work.job.halt
    if wish is None:
        return False
    if not wish.stopping and not _prepare(work, wish):
        return False
    return _stop(work)


def _prepare(work: Work, wish: HaltRequest) -> bool:
    """Whether the workers may stop now: what they hold is saved, or is not to be."""
    if not wish.saves or not _holds_state(work):
        return _begin_stop(work, wish, "nothing has to be saved")
    held = held_step(work) if work.island.hold is Hold.SAVE else -1
    if held >= 0:
        return _saved(work, wish, held)
    if may_hold(work) and work.island.hold is Hold.NONE:
        hold(work, Hold.SAVE)
        what = "paused" if wish.kind is HaltKind.PAUSE else "restarted"
        set_phase(work, _PHASES[wish.kind], "Saving", f"is {what} after the open step, which is saved first")
    return False


def _holds_state(work: Work) -> bool:
    """Whether a worker lives that may hold more than the newest checkpoint does. A command keeps its state itself."""
    record = work.island.record
    if record is None or work.job.spec.spec.runs_command:
        return False
    known = {m.incarnation for m in record.members}
    return any(s.alive and s.incarnation in known for s in work.slots())


def _saved(work: Work, wish: HaltRequest, step: int) -> bool:
    record, checkpoints = work.island.record, work.job.checkpoints
    assert record is not None
    newest = checkpoints[-1] if checkpoints else work.job.resume
    if newest is not None and newest.step == step:
        return _begin_stop(work, wish, f"the checkpoint of step {step} is committed")
    if not wish.held_s:
        wish = _change(work, wish, held_s=work.now_s)
    failed = wish.failed_step == step
    if not failed and not work.overdue(wish.held_s, work.timeouts.prepare_s):
        return False
    why = f"the checkpoint of step {step} " + ("could not be saved" if failed else "was not reported")
    if wish.allow_loss:
        return _begin_stop(work, wish, why)
    work.set_job(halt=None)
    message = f"the {wish.kind.value} is called off, the job goes on after step {step}: {why}"
    work.emit(events.JOB_HALT_GIVEN_UP, "NotSaved", message, step=step)
    return False


def _begin_stop(work: Work, wish: HaltRequest, why: str) -> bool:
    _change(work, wish, stopping=True)
    set_phase(work, _PHASES[wish.kind], "Stopping", f"{why}: workers stop")
    abort(work, f"the job is {work.job.phase.value.lower()}")
    for slot in work.slots():
        if slot.alive:
            work.move_slot(slot.index, SlotState.DRAINING, reason=f"{wish.kind.value} requested")
    return True


def _change(work: Work, wish: HaltRequest, **changes: Any) -> HaltRequest:
    wish = replace(wish, **changes)
    work.set_job(halt=wish)
    return wish


def _stop(work: Work) -> bool:
    wish = work.job.halt
    assert wish is not None
    if any(slot.state is not SlotState.EMPTY for slot in work.slots()):
        return True
    work.set_job(halt=None)
    work.set_island(hold=Hold.NONE)
    if wish.kind is HaltKind.RESTART:
        _start_again(work)
        return False
    abandon_recovery(work, "the job was paused meanwhile")
    work.job = with_condition(work.job, DEGRADED, False, work.now_s, reason="Paused", message="its workers have ended")
    for slot in work.slots():
        if slot.bound:
            work.set_slot(slot.index, node="", agent_incarnation=0, address="")
    resume = f"trainctl resume {work.job.name}"
    set_phase(work, JobPhase.PAUSED, "Paused", f"{where_it_goes_on(work.job)}; resume it with: {resume}")
    if wish.resume:
        set_phase(work, JobPhase.QUEUED, "Resumed", "the pause was taken back")
    return True


def _start_again(work: Work) -> None:
    """The same places get new lives; the checkpoint is what they begin with."""
    record = work.island.record
    assert record is not None
    slots = [m.slot for m in record.members]
    begin_resize(work, "restart requested", slots)
    open_proposal(work, slots, Cause.RESTART, f"restart requested: {where_it_goes_on(work.job)}")
