"""What people ask of a job that lives: pause, resume, restart, go back. Each is checked, written down, and done later.

All pure. A request that cannot be granted raises, and nothing is changed. Asking again for what is under way changes
nothing.
"""

from __future__ import annotations

from dataclasses import replace

from trainctl.controller.domain import events
from trainctl.controller.domain.events import EventDraft
from trainctl.controller.domain.goodput import Bucket, switch
from trainctl.controller.domain.job_records import HaltKind, HaltRequest, RollbackRequest
from trainctl.controller.domain.job_state import JobState
from trainctl.controller.domain.reconcile.lifecycle import move_job
from trainctl.controller.domain.reconcile.result import Reconciliation
from trainctl.controller.domain.states import STOPPING, TERMINAL, JobPhase
from trainctl.core.errors import PreconditionError
from trainctl.core.records.generation import CheckpointRef
from trainctl.core.units import format_count

_TRAINS = (JobPhase.RUNNING, JobPhase.RECOVERING, JobPhase.RESIZING)


class IllegalTransitionError(PreconditionError):
    """The job is in a phase from which this cannot be done."""

    code = "ILLEGAL_TRANSITION"


class StepsWouldBeLostError(PreconditionError):
    """What the workers hold cannot be saved now: doing it would throw committed steps away."""

    code = "STEPS_WOULD_BE_LOST"


def request_pause(state: JobState, now_s: float) -> Reconciliation:
    """The job saves a checkpoint as soon as it trains, stops its workers and gives their slots back.

    Raises:
        IllegalTransitionError: it ends or has ended, or is being restarted.
    """
    refuse_ending(state, "paused")
    if state.phase is JobPhase.PAUSED or (state.halt is not None and state.halt.kind is HaltKind.PAUSE):
        halt = replace(state.halt, resume=False) if state.halt is not None else None
        return Reconciliation(state=replace(state, halt=halt))
    if state.halt is not None:
        raise illegal(state, "paused", "wait until it trains again, then pause it")
    when = "after the open step" if state.phase is JobPhase.RUNNING else "as soon as it trains"
    saved = "" if state.spec.spec.runs_command else f"; a checkpoint is saved first, {when}"
    message = f"pause requested in phase {state.phase}: workers stop and give their slots back{saved}"
    halt = HaltRequest(kind=HaltKind.PAUSE, requested_s=now_s)
    return _noted(replace(state, halt=halt), events.JOB_PAUSE_REQUESTED, message)


def request_resume(state: JobState, now_s: float) -> Reconciliation:
    """A paused job is queued again; a pause that is not complete is taken back.

    Raises:
        IllegalTransitionError: it is not paused and not about to be.
    """
    if state.phase is JobPhase.PAUSED:
        message = f"resume requested after {now_s - state.phase_since_s:.0f} s: waits for slots"
        changed, drafts = move_job(state, JobPhase.QUEUED, now_s, reason="Resumed", message=message)
        changed = replace(changed, goodput=switch(changed.goodput, Bucket.QUEUED, now_s))
        return _noted(changed, events.JOB_RESUME_REQUESTED, message, drafts)
    if state.halt is None or state.halt.kind is not HaltKind.PAUSE:
        raise illegal(state, "resumed", "only a paused job can be; `trainctl explain` says why one does not train")
    halt = replace(state.halt, resume=True) if state.halt.stopping else None
    return _noted(replace(state, halt=halt), events.JOB_RESUME_REQUESTED, "the pause is taken back")


def request_restart(state: JobState, now_s: float, *, allow_loss: bool) -> Reconciliation:
    """All workers get new processes, which go on from a checkpoint that is saved for it.

    Args:
        state: of the job.
        now_s: Unix seconds.
        allow_loss: go on from the newest committed checkpoint where none can be saved.

    Raises:
        IllegalTransitionError: it has no workers that could be restarted.
        StepsWouldBeLostError: it does not train, so nothing can be saved, and ``allow_loss`` is not given.
    """
    refuse_ending(state, "restarted")
    if state.halt is not None and state.halt.kind is HaltKind.RESTART:
        return Reconciliation(state=state)
    if state.halt is not None or state.phase is JobPhase.PAUSED:
        raise illegal(state, "restarted", f"its workers are new after: trainctl resume {state.name}")
    if state.phase not in _TRAINS or state.sole_island.record is None:
        raise illegal(state, "restarted", "it has no workers yet, or they are just starting")
    saves = _can_save(state)
    if not saves and not allow_loss and not state.spec.spec.runs_command:
        raise StepsWouldBeLostError(
            f"job {state.name} is {state.phase}: what its workers hold cannot be saved now; {where_it_goes_on(state)}",
            hint="try again when it is RUNNING, or accept that with -y",
        )
    first = "a checkpoint is saved first" if saves else where_it_goes_on(state)
    message = f"restart requested in phase {state.phase}: every worker gets a new process; {first}"
    halt = HaltRequest(kind=HaltKind.RESTART, requested_s=now_s, saves=saves, allow_loss=allow_loss)
    return _noted(replace(state, halt=halt), events.JOB_RESTART_REQUESTED, message)


def _can_save(state: JobState) -> bool:
    island = state.sole_island
    trains = state.phase is JobPhase.RUNNING and island.entered and island.proposal is None
    return trains and state.rollback is None and not state.spec.spec.runs_command


def where_it_goes_on(state: JobState) -> str:
    """What a job without its workers' state goes on from, and what that costs."""
    newest = state.checkpoints[-1] if state.checkpoints else state.resume
    step = state.progress.step
    if state.spec.spec.runs_command:
        return "the command goes on from what it saved itself"
    if newest is None:
        none = f"there is no checkpoint: it begins at step 0 again and loses {format_count(step, 'step')}"
        return none if step else "nothing was trained yet"
    lost = max(0, step - newest.step)
    costs = f"and loses {format_count(lost, 'step')}" if lost else "and loses nothing"
    return f"it goes on from the checkpoint of step {newest.step} {costs}"


def rollback_target(state: JobState, to_step: int | None) -> CheckpointRef:
    """The checkpoint that a roll-back means.

    Args:
        state: of the job.
        to_step: its step; None: the one before the newest.

    Raises:
        IllegalTransitionError: the job ends, has ended, or its workers are being stopped.
        PreconditionError: there is no such checkpoint; lists those that there are.
    """
    if state.spec.spec.runs_command:
        hint = "give the command what it shall begin with, and restart it: trainctl restart " + state.name
        raise PreconditionError(f"job {state.name} runs a command, which keeps its state itself", hint=hint)
    if state.phase in TERMINAL or state.phase in STOPPING:
        known = [*state.checkpoints[-2:]] or ([state.resume] if state.resume else [])
        uri = known[0].uri if known else "<uri of a checkpoint>"
        raise illegal(state, "rolled back", f"submit it again with spec.checkpoint.resumeFrom: {uri}")
    if state.halt is not None and state.phase is not JobPhase.PAUSED:
        raise illegal(state, "rolled back", f"wait until the {state.halt.kind.value} is done")
    known = [ref for ref in (state.resume, *state.checkpoints) if ref is not None]
    steps = ", ".join(str(ref.step) for ref in known) or "none"
    if to_step is None:
        if len(known) < 2:
            raise PreconditionError(
                f"job {state.name} has no checkpoint before its newest (committed: {steps})",
                hint="name the newest with --to-step to give up only what came after it" if known else "",
            )
        return known[-2]
    found = next((ref for ref in reversed(known) if ref.step == to_step), None)
    if found is None:
        raise PreconditionError(
            f"job {state.name} has no committed checkpoint of step {to_step}; there are those of: {steps}",
            hint=f"trainctl checkpoints list {state.name}",
        )
    return found


def lost_steps(state: JobState, target: CheckpointRef) -> int:
    """Committed steps that a roll-back to ``target`` gives up."""
    newest = max((ref.step for ref in state.checkpoints), default=0)
    return max(0, max(newest, state.progress.step) - target.step)


def request_rollback(state: JobState, now_s: float, *, target: CheckpointRef) -> Reconciliation:
    """The next generation begins with ``target``, in a new lineage; newer checkpoints are no longer the job's.

    Raises:
        IllegalTransitionError, PreconditionError: as ``rollback_target``; also if ``target`` is no longer there.
    """
    target = rollback_target(state, target.step)
    kept = tuple(ref for ref in state.checkpoints if ref.step <= target.step)
    given_up = [ref for ref in state.checkpoints if ref not in kept]
    left = f"; given up: {', '.join(ref.uri for ref in given_up)}" if given_up else ""
    steps = lost_steps(state, target)
    message = (
        f"roll-back to the checkpoint of step {target.step} requested, giving up {format_count(steps, 'step')}{left}"
    )
    wish = RollbackRequest(requested_s=now_s, checkpoint=target)
    changed = replace(state, checkpoints=kept, rollback=wish)
    return _noted(changed, events.JOB_ROLLBACK_REQUESTED, message)


def refuse_ending(state: JobState, what: str) -> None:
    """For what only a job that goes on can be asked for.

    Raises:
        IllegalTransitionError: it ends or has ended.
    """
    if state.phase in TERMINAL:
        again = "" if state.spec.spec.runs_command else " with spec.checkpoint.resumeFrom to go on from it"
        raise illegal(state, what, f"it has ended; submit it again{again}")
    if state.phase in STOPPING:
        raise illegal(state, what, "its workers are on their way out; submit it again when it has ended")


def illegal(state: JobState, what: str, hint: str) -> IllegalTransitionError:
    """The error that names the phase, what cannot be done in it, and what to do instead."""
    return IllegalTransitionError(f"job {state.name} is {state.phase}: it cannot be {what}", hint=hint)


def _noted(state: JobState, type_: str, message: str, drafts: tuple[EventDraft, ...] = ()) -> Reconciliation:
    asked = EventDraft(type=type_, reason="User", message=message)
    return Reconciliation(state=state, events=(asked, *drafts))
