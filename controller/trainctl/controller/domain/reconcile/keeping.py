"""What people ask about single checkpoints of a job: remove one, pin one so that it stays. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from trainctl.controller.domain import events
from trainctl.controller.domain.events import EventDraft
from trainctl.controller.domain.job_state import JobState
from trainctl.controller.domain.kept_checkpoints import being_loaded
from trainctl.controller.domain.reconcile.result import Reconciliation
from trainctl.controller.domain.states import TERMINAL
from trainctl.core.errors import NotFoundError, PreconditionError
from trainctl.core.records.generation import CheckpointRef


class CheckpointNeededError(PreconditionError):
    """The checkpoint cannot be removed: somebody goes on from it, or wants it kept."""

    code = "CHECKPOINT_NEEDED"


def checkpoint_of(state: JobState, step: int) -> CheckpointRef:
    """The committed checkpoint of a step.

    Raises:
        NotFoundError: there is none; lists those that there are.
    """
    found = next((ref for ref in reversed(state.checkpoints) if ref.step == step), None)
    if found is None:
        steps = ", ".join(str(ref.step) for ref in state.checkpoints) or "none"
        raise NotFoundError(
            f"job {state.name} has no committed checkpoint of step {step}; there are those of: {steps}",
            hint=f"trainctl checkpoints list {state.name}",
        )
    return found


def request_checkpoint_removal(
    state: JobState, now_s: float, *, step: int, missing: Collection[str] = ()
) -> Reconciliation:
    """A checkpoint is no longer the job's, and its files are to go.

    Args:
        state: of the job.
        now_s: Unix seconds.
        step: of the checkpoint.
        missing: URIs of checkpoints whose files are gone, as far as somebody can see.

    Raises:
        NotFoundError: there is none of this step.
        CheckpointNeededError: it is pinned, is being loaded, is what a job that lives goes on from after a failure, or
            is the last valid one.
    """
    del now_s
    ref = checkpoint_of(state, step)
    if ref.uri in state.pinned:
        hint = f"trainctl checkpoints unpin {state.name} --step {step}"
        raise CheckpointNeededError(f"the checkpoint of step {step} of job {state.name} is pinned", hint=hint)
    if state.phase not in TERMINAL:
        _refuse_if_used(state, ref)
    _refuse_if_last(state, ref, missing)
    left = tuple(known for known in state.checkpoints if known != ref)
    message = f"removal of the checkpoint of step {step} requested: {ref.uri}"
    changed = replace(state, checkpoints=left, doomed=(*state.doomed, ref))
    return _noted(changed, events.CHECKPOINT_DELETE_REQUESTED, message, ref)


def _refuse_if_used(state: JobState, ref: CheckpointRef) -> None:
    if ref == state.checkpoints[-1]:
        raise CheckpointNeededError(
            f"the checkpoint of step {ref.step} is the newest of job {state.name}, which is {state.phase}: it goes on "
            "from it after a failure",
            hint="wait for a newer one, or until the job has ended",
        )
    if any(known.uri == ref.uri for known in being_loaded(state)):
        raise CheckpointNeededError(
            f"the checkpoint of step {ref.step} of job {state.name} is being loaded",
            hint=f"wait until the job trains: trainctl watch {state.name}",
        )


def _refuse_if_last(state: JobState, ref: CheckpointRef, missing: Collection[str]) -> None:
    """Also where its own files seem to be gone: a storage that is away for a while is no reason to forget it."""
    if any(known != ref and known.uri not in missing for known in state.checkpoints):
        return
    raise CheckpointNeededError(
        f"the checkpoint of step {ref.step} is the last valid one of job {state.name}: it goes only with the job",
        hint=f"when the job has ended, `trainctl delete {state.name}` removes it, with all else that is the job's",
    )


def observe_checkpoint_removed(state: JobState, ref: CheckpointRef) -> Reconciliation:
    """The files of a checkpoint that was to go are gone."""
    if ref not in state.doomed:
        return Reconciliation(state=state)
    changed = replace(state, doomed=tuple(known for known in state.doomed if known != ref))
    return _noted(changed, events.CHECKPOINT_DELETED, f"checkpoint of step {ref.step} is removed: {ref.uri}", ref)


def request_pin(state: JobState, now_s: float, *, step: int, pinned: bool) -> Reconciliation:
    """A checkpoint stays until it is unpinned, or no longer does.

    Raises:
        NotFoundError: there is none of this step.
    """
    del now_s
    ref = checkpoint_of(state, step)
    if (ref.uri in state.pinned) == pinned:
        return Reconciliation(state=state)
    known = {known.uri for known in state.checkpoints}
    others = tuple(uri for uri in state.pinned if uri != ref.uri and uri in known)
    changed = replace(state, pinned=(*others, *([ref.uri] if pinned else [])))
    if pinned:
        return _noted(changed, events.CHECKPOINT_PINNED, f"checkpoint of step {step} is pinned: {ref.uri}", ref)
    message = f"checkpoint of step {step} is no longer pinned: {ref.uri}"
    return _noted(changed, events.CHECKPOINT_UNPINNED, message, ref)


def _noted(state: JobState, type_: str, message: str, ref: CheckpointRef) -> Reconciliation:
    fields = {"step": str(ref.step), "lineage": str(ref.lineage)}
    return Reconciliation(state=state, events=(EventDraft(type=type_, reason="User", message=message, fields=fields),))
