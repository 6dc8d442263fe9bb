"""Somebody has read a checkpoint of a job and found it damaged: it is refused as if a load had found that. Pure.

Nobody goes anywhere: the job trains on, and has one less to go back to. The last one stays in the list, since a job
without any would begin at step 0: one that goes back to it fails, and says why. Only the condition and the event tell.
"""

from __future__ import annotations

from trainctl.controller.domain import events
from trainctl.controller.domain.conditions import CHECKPOINT_STALE, with_condition
from trainctl.controller.domain.events import EventDraft
from trainctl.controller.domain.job_state import JobState
from trainctl.controller.domain.reconcile.refused import is_refused, refused, sources
from trainctl.controller.domain.reconcile.result import Reconciliation
from trainctl.controller.domain.states import TERMINAL
from trainctl.core.errors import NotFoundError
from trainctl.core.records.generation import CheckpointRef

_MAX_FOUND = 2000
"""Characters of what was found that are kept."""


def checkpoint_at(state: JobState, uri: str) -> CheckpointRef | None:
    """The checkpoint at ``uri`` that the job can go back to; None: it is refused already.

    Raises:
        NotFoundError: it is none of the job's; lists those that are.
    """
    ref = next((ref for ref in sources(state) if ref.uri == uri), None)
    if ref is None and not is_refused(state, uri):
        listed = "".join(f"\n  step {ref.step}: {ref.uri}" for ref in sources(state)) or " none"
        raise NotFoundError(
            f"job {state.name} has no checkpoint at {uri or 'an empty URI'}; those that it has:{listed}",
            hint=f"trainctl checkpoints list {state.name}",
        )
    return ref


def request_refuse(state: JobState, now_s: float, *, uri: str, found: str, by: str) -> Reconciliation:
    """Refuses a checkpoint. Repeating it has no second effect.

    Args:
        state: of the job.
        now_s: Unix seconds.
        uri: of the checkpoint.
        found: what is wrong with it.
        by: who says so.

    Raises:
        NotFoundError: it is none of the job's.
    """
    bad = checkpoint_at(state, uri)
    if bad is None:
        return Reconciliation(state=state)
    found = found.strip()[:_MAX_FOUND] or "it is damaged"
    who = f"{by or 'somebody'}, who verified it,"
    if len(sources(state)) > 1 or state.phase in TERMINAL:
        changed, told = refused(state, bad, now_s, found=found, who=who, goes_back=False)
        return Reconciliation(state=changed, events=(told,))
    message = (
        f"checkpoint of step {bad.step} is damaged: {bad.uri}; {who} found: {found}; the job has no other, so that it "
        "fails if it has to go back"
    )
    if any(known.type == CHECKPOINT_STALE and known.message == message for known in state.conditions):
        return Reconciliation(state=state)
    fields = {"step": str(bad.step), "lineage": str(bad.lineage), "attempt": bad.attempt}
    told = EventDraft(type=events.CHECKPOINT_REJECTED, reason="Damaged", message=message, fields=fields)
    changed = with_condition(state, CHECKPOINT_STALE, True, now_s, reason="Damaged", message=message)
    return Reconciliation(state=changed, events=(told,))
