"""A refused checkpoint was brought back from a copy, and somebody takes the refusal back. Pure.

A job that has gone on elsewhere does not return to it: what was trained since does not descend from it, and a lineage
only ever goes back. It takes it up again as long as it stands on it (nobody was sent elsewhere), or never went away (it
was read back while the job trained on).
"""

from __future__ import annotations

from dataclasses import replace

from trainctl.controller.domain import events
from trainctl.controller.domain.conditions import CHECKPOINT_STALE, with_condition
from trainctl.controller.domain.events import EventDraft
from trainctl.controller.domain.job_records import RefusedCheckpoint
from trainctl.controller.domain.job_state import JobState
from trainctl.controller.domain.reconcile.result import Reconciliation
from trainctl.controller.domain.states import TERMINAL
from trainctl.core.errors import NotFoundError
from trainctl.core.records.generation import CheckpointRef


def refused_checkpoint(state: JobState, uri: str) -> RefusedCheckpoint | None:
    """The refused checkpoint at ``uri``; None: the job has it, so nothing is to be taken back.

    Raises:
        NotFoundError: it is neither; lists those that are refused.
    """
    found = next((refused for refused in state.refused if refused.ref.uri == uri), None)
    if found is None and not holds_checkpoint(state, uri):
        listed = "".join(f"\n  step {refused.ref.step}: {refused.ref.uri}" for refused in state.refused) or " none"
        raise NotFoundError(
            f"job {state.name} has refused no checkpoint at {uri or 'an empty URI'}; those that it has:{listed}",
            hint=f"trainctl checkpoints list {state.name}",
        )
    return found


def holds_checkpoint(state: JobState, uri: str) -> bool:
    """Whether the job has this checkpoint: one of its own, or what it was told to begin with."""
    return any(ref.uri == uri for ref in (state.resume, *state.resume_older, *state.checkpoints) if ref is not None)


def request_accept(state: JobState, now_s: float, *, uri: str) -> Reconciliation:
    """A refused checkpoint is whole again, says somebody who has read it.

    Raises:
        NotFoundError: none at this URI is refused.
    """
    refused = refused_checkpoint(state, uri)
    if refused is None:
        return Reconciliation(state=state)
    ref = refused.ref
    changed = replace(state, refused=tuple(other for other in state.refused if other != refused))
    changed, onward = _taken_up(changed, ref, now_s)
    message = f"the refusal of the checkpoint of step {ref.step} is taken back: it was found whole; {onward}: {ref.uri}"
    fields = {"step": str(ref.step), "lineage": str(ref.lineage), "attempt": ref.attempt}
    event = EventDraft(type=events.CHECKPOINT_ACCEPTED, reason="User", message=message, fields=fields)
    return Reconciliation(state=changed, events=(event,))


def _taken_up(state: JobState, ref: CheckpointRef, now_s: float) -> tuple[JobState, str]:
    own = ref.committed_s > 0.0
    if state.phase in TERMINAL:
        if not own:
            return state, "another job can begin with it"
        return _with_own(state, ref), "it is listed again, and another job can begin with it"
    goes_back, descends = _stands_on(state, ref), own and _descends_from(state, ref)
    if not goes_back and not descends:
        return state, "the job has gone on without it; another job can begin with it"
    if own:
        state = _with_own(state, ref)
    else:
        older = state.resume_older if state.resume is None else (state.resume, *state.resume_older)
        state = replace(state, resume=ref, resume_older=older)
    state = with_condition(
        state, CHECKPOINT_STALE, False, now_s, reason="Accepted", message=f"{ref.uri} is whole again"
    )
    return state, "the job goes back to it" if goes_back else "it is one of the job's again"


def _descends_from(state: JobState, ref: CheckpointRef) -> bool:
    """The job never went back since: that would have begun another lineage."""
    record = state.sole_island.record
    return state.rollback is None and record is not None and record.lineage == ref.lineage


def _stands_on(state: JobState, ref: CheckpointRef) -> bool:
    """Its last record sent all members to this checkpoint, nobody trained since, and nobody wants something else."""
    if state.rollback is not None:
        return False
    island = state.sole_island
    record = island.record
    sent = record is not None and record.checkpoint is not None and record.checkpoint.uri == ref.uri
    return sent and not island.entered


def _with_own(state: JobState, ref: CheckpointRef) -> JobState:
    """In its place: oldest first."""
    return replace(state, checkpoints=tuple(sorted((*state.checkpoints, ref), key=lambda r: (r.lineage, r.step))))
