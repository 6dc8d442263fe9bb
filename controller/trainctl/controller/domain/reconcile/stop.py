"""Ending a job: every worker stops (or is killed), and when the last exit is confirmed the job is terminal."""

from __future__ import annotations

from trainctl.controller.domain.conditions import CHECKPOINT_STALE, DEGRADED, with_condition
from trainctl.controller.domain.job_records import JobFailure
from trainctl.controller.domain.reconcile.lifecycle import fail_job, set_phase
from trainctl.controller.domain.reconcile.propose import abort
from trainctl.controller.domain.reconcile.work import Work
from trainctl.controller.domain.states import JobPhase, SlotState
from trainctl.core.units import format_count

STOP_GRACE_S = 10.0
"""Seconds that a worker has to end in good order when nothing has to be saved."""


def stop(work: Work) -> None:
    """One pass over a job in COMPLETING, CANCELLING or FAILING."""
    _stop_workers(work)
    abort(work, f"the job is {work.job.phase.value.lower()}")
    if any(slot.state is not SlotState.EMPTY for slot in work.slots()):
        return
    for slot in work.slots():
        if slot.bound:
            work.set_slot(slot.index, node="", agent_incarnation=0, address="")
    _end(work)


def _stop_workers(work: Work) -> None:
    kill = work.job.phase is JobPhase.FAILING
    for slot in work.slots():
        if slot.alive:
            state = SlotState.CONDEMNED if kill else SlotState.DRAINING
            work.move_slot(slot.index, state, reason=f"the job is {work.job.phase.value.lower()}")


def mind_draining(work: Work) -> None:
    """A worker that does not stop within its grace and the time to notice is killed."""
    for slot in work.slots():
        if slot.state is SlotState.DRAINING and work.view.settled:
            limit_s = grace_s(work) + work.timeouts.prepare_s
            if work.overdue(slot.since_s, limit_s):
                work.move_slot(slot.index, SlotState.CONDEMNED, reason=f"did not stop within {limit_s:g} s")


def grace_s(work: Work) -> float:
    """Seconds that a stopping worker is given."""
    return work.job.cancel.grace_s if work.job.cancel is not None else STOP_GRACE_S


def _end(work: Work) -> None:
    phase = work.job.phase
    work.job = with_condition(work.job, DEGRADED, False, work.now_s, reason="Ended", message="its workers have ended")
    if phase is JobPhase.COMPLETING and (in_vain := _unsaved(work) or _untrained(work)):
        fail_job(work, in_vain)
        phase = work.job.phase
    if phase is JobPhase.COMPLETING:
        progress = work.job.progress
        skipped = f" ({progress.skipped} of them skipped)" if progress.skipped else ""
        loss = f", last loss {progress.loss:.4f}" if progress.loss is not None else ""
        message = f"job {work.job.name} finished {format_count(work.job.steps, 'step')}{skipped}{loss}"
        if work.job.spec.spec.runs_command:
            message = f"the command of job {work.job.name} ended with exit code 0 on all ranks"
        set_phase(work, JobPhase.SUCCEEDED, "Succeeded", message)
    elif phase is JobPhase.CANCELLING:
        saved = work.job.checkpoints[-1] if work.job.checkpoints else None
        rest = f"; its last checkpoint is {saved.uri} at step {saved.step}" if saved else "; no checkpoint was saved"
        rest = "" if work.job.spec.spec.runs_command else rest
        set_phase(work, JobPhase.CANCELLED, "Cancelled", f"job {work.job.name} was cancelled{rest}")
    else:
        failure = work.job.failure
        set_phase(work, JobPhase.FAILED, work.job.reason, failure.message if failure else work.job.message)


def _unsaved(work: Work) -> JobFailure | None:
    """A job whose last state could not be saved did its steps for nothing: that is no success."""
    job, steps = work.job, work.job.steps
    failed = next((c for c in job.conditions if c.type == CHECKPOINT_STALE and c.status == "True"), None)
    newest = job.checkpoints[-1] if job.checkpoints else None
    if failed is None or (newest is not None and newest.step >= steps):
        return None
    left = f"the newest checkpoint is of step {newest.step}: {newest.uri}" if newest else "no checkpoint was ever saved"
    return JobFailure(
        code="CHECKPOINT_NOT_SAVED",
        message=f"job {job.name} did all its steps, but its last state was not saved; {left} ({failed.message})",
        hint="make room or correct spec.checkpoint.uri, then submit again; resumeFrom takes the newest checkpoint",
    )


def _untrained(work: Work) -> JobFailure | None:
    """A job whose every gradient was thrown away ends with the parameters that it began with: that is no success."""
    job = work.job
    if not 0 < job.steps <= job.progress.skipped:
        return None
    return JobFailure(
        code="EVERY_STEP_SKIPPED",
        message=f"job {job.name} did its steps, but every one of the {job.steps} was skipped: nothing was learned",
        hint=f"the worker.notice events say why: trainctl events {job.name}; a loss that is not finite from the "
        "first step on points to the data, the precision or the loss function, not to the learning rate",
    )
