"""New elastic bounds of a job that lives, and the end of one that is to be deleted. Pure."""

from __future__ import annotations

from dataclasses import replace

from trainctl.controller.domain import events
from trainctl.controller.domain.events import EventDraft
from trainctl.controller.domain.job_records import DeletionRequest
from trainctl.controller.domain.job_state import JobState, with_slots
from trainctl.controller.domain.reconcile.inputs import request_cancel
from trainctl.controller.domain.reconcile.result import Reconciliation
from trainctl.controller.domain.reconcile.wishes import illegal, refuse_ending
from trainctl.controller.domain.spec import validate
from trainctl.controller.domain.states import TERMINAL
from trainctl.core.errors import SpecError
from trainctl.core.records.spec import NodesSpec
from trainctl.core.units import format_count


def request_scale(
    state: JobState, now_s: float, *, least: int | None = None, most: int | None = None, target: int | None = None
) -> Reconciliation:
    """Changes the bounds of the effective spec; the members follow at a step boundary.

    A bound that is left out stays. The target stays, too, as far as the bounds let it, and follows ``max`` where the
    user never gave one.

    Args:
        state: of the job.
        now_s: Unix seconds.
        least: fewest nodes.
        most: most nodes.
        target: nodes that it should run on.

    Raises:
        IllegalTransitionError: the job ends or has ended.
        SpecError: the new bounds do not fit each other or the batch.
    """
    refuse_ending(state, "scaled")
    nodes = _scaled(state, least, most, target)
    old = state.spec.spec.nodes
    if nodes == old:
        return Reconciliation(state=state)
    spec = replace(state.spec, spec=replace(state.spec.spec, nodes=nodes))
    problems = validate(spec)
    if problems:
        raise SpecError(problems, source=f"new size of job {state.name}", hint="nothing was changed")
    count = nodes.max * spec.spec.resources.workers_per_node
    islands = tuple(replace(i, slots=with_slots(i.slots, count, now_s)) for i in state.islands)
    message = f"scaled from {_words(old)} to {_words(nodes)}"
    fields = {"from": _words(old), "to": _words(nodes)}
    event = EventDraft(type=events.JOB_SCALED, reason="User", message=message, fields=fields)
    return Reconciliation(state=replace(state, spec=spec, islands=islands), events=(event,))


def _scaled(state: JobState, least: int | None, most: int | None, target: int | None) -> NodesSpec:
    old = state.spec.spec.nodes
    least = old.min if least is None else least
    most = old.max if most is None else most
    if target is None:
        wanted = old.target if state.user_spec.spec.nodes.target or old.target != old.max else most
        target = max(least, min(most, wanted)) if least <= most else wanted
    return NodesSpec(min=least, max=most, target=target)


def _words(nodes: NodesSpec) -> str:
    return f"{format_count(nodes.target, 'node')} (min {nodes.min}, max {nodes.max})"


def request_delete(
    state: JobState, now_s: float, *, keep_checkpoints: bool, force: bool, by: str = ""
) -> Reconciliation:
    """Writes down that nothing shall be left of the job; what lives is cancelled first.

    Raises:
        IllegalTransitionError: it has not ended, and ``force`` is not given.
    """
    if state.phase not in TERMINAL and not force:
        hint = f"cancel it first (trainctl cancel {state.name}), or do both with --force"
        raise illegal(state, "deleted", hint)
    if state.deletion is not None:
        return Reconciliation(state=state)
    wish = DeletionRequest(requested_s=now_s, keep_checkpoints=keep_checkpoints, by=by)
    kept = "its checkpoints stay" if keep_checkpoints else "with its checkpoints"
    message = f"deletion requested, {kept}"
    ending = request_cancel(replace(state, deletion=wish), now_s, checkpoint=False)
    event = EventDraft(type=events.JOB_DELETE_REQUESTED, reason="User", message=message)
    return Reconciliation(state=ending.state, events=(event, *ending.events))
