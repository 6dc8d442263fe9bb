"""Proposing generations: when the members of the committed one no longer fit, and until the new one is complete.

A proposal tells survivors at once to stop waiting for the lost. It stays open while replacements boot; losing one of
those already counted in aborts it, and the next number is proposed. Nothing is decided about the state here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from trainctl.controller.domain import events
from trainctl.controller.domain.job_state import Cause, Hold, Proposal, global_ranks
from trainctl.controller.domain.reconcile.detect import verdict_due
from trainctl.controller.domain.reconcile.hold import all_held, hold
from trainctl.controller.domain.reconcile.lifecycle import set_phase, wait_in
from trainctl.controller.domain.reconcile.place import describe_wait, has_room_elsewhere
from trainctl.controller.domain.reconcile.recoveries import begin_resize
from trainctl.controller.domain.reconcile.resize import next_resize
from trainctl.controller.domain.reconcile.trouble import mind_trouble
from trainctl.controller.domain.reconcile.work import Work
from trainctl.controller.domain.states import GenerationPhase, JobPhase, Machine, SlotState, advance
from trainctl.core.units import format_count

_RESIZES: Mapping[Cause, str] = {Cause.GROW: "Growing", Cause.RESIZE: "Resizing"}
_INTERRUPTIONS: Mapping[Cause, str] = {
    Cause.FAULT: "Fault",
    Cause.RESTART: "Restart",
    Cause.ROLLBACK: "Rollback",
    Cause.RELEASE: "Released",
}
_INTERRUPTED = (JobPhase.RUNNING, JobPhase.RESIZING, JobPhase.PAUSING, JobPhase.RESTARTING)


def propose(work: Work) -> None:
    """Opens, keeps, replaces or gives up the proposal of the island."""
    if work.island.proposal is not None:
        _maintain(work)
    elif work.job.phase is JobPhase.QUEUED:
        _release(work)
    elif work.job.phase is JobPhase.ADMITTED:
        placed = [s.index for s in work.slots() if s.bound]
        if placed:
            open_proposal(
                work, placed, Cause.START, "first placement" if work.island.record is None else "placed again"
            )
    elif work.island.record is not None:
        _watch_committed(work)
    if work.island.proposal is not None:
        _mind_short(work)


def _watch_committed(work: Work) -> None:
    """Reasons to leave the committed generation: a lost member, trouble between live ones, a wish, a change of size."""
    record = work.island.record
    assert record is not None
    kept = [m.slot for m in record.members]
    lost = [m.slot for m in record.members if not _is_in(work, m.slot, m.incarnation)]
    if lost:
        if verdict_due(work):
            return
        ready = [s.index for s in work.slots() if s.index not in kept and s.state is SlotState.READY]
        who = ", ".join(str(slot) for slot in lost)
        open_proposal(work, [*kept, *_whole_groups(work, ready)], Cause.FAULT, f"lost worker {who}")
        return
    problem = mind_trouble(work)
    if problem:
        open_proposal(work, kept, Cause.FAULT, problem)
    elif work.job.rollback is not None:
        step = work.job.rollback.checkpoint.step
        begin_resize(work, f"roll-back to step {step} requested", kept)
        open_proposal(work, kept, Cause.ROLLBACK, f"roll-back to step {step} requested")
    elif work.island.hold is Hold.SAVE and work.job.halt is None:
        open_proposal(work, kept, Cause.RELEASE, "the workers are let go on")
    elif work.island.entered and work.job.phase is JobPhase.RUNNING and work.island.hold is not Hold.SAVE:
        _resize(work)


def _resize(work: Work) -> None:
    """Changes the members at a step boundary: whoever is to come is ready, and no step is open or repeated."""
    record = work.island.record
    assert record is not None
    change = next_resize(work, room_elsewhere=has_room_elsewhere(work))
    if change is None:
        if work.island.hold is Hold.RESIZE and all_held(work):
            kept = [m.slot for m in record.members]
            open_proposal(work, kept, Cause.RELEASE, "the change of size is no longer wanted")
    elif not work.job.spec.spec.runs_command and not all_held(work):
        hold(work, Hold.RESIZE)
    else:
        begin_resize(work, change.reason, change.moved)
        open_proposal(work, change.slots, change.cause, change.reason)


def _whole_groups(work: Work, ready: Iterable[int]) -> list[int]:
    """Ready newcomers whose whole group is ready."""
    ready = set(ready)
    groups = {index // work.per_node for index in ready}
    whole = {g for g in groups if all(i in ready for i in range(g * work.per_node, (g + 1) * work.per_node))}
    return [index for index in ready if index // work.per_node in whole]


def _is_in(work: Work, slot: int, incarnation: int) -> bool:
    held = work.slot(slot)
    return held.alive and held.incarnation == incarnation


def open_proposal(work: Work, slots: Iterable[int], cause: Cause, reason: str, *, short_since_s: float = 0.0) -> None:
    """Takes the next number and asks everybody who is there to prepare for it."""
    generation = work.island.generation + 1
    wanted = frozenset(slots)
    members = global_ranks(s for s in work.slots() if s.index in wanted and s.alive)
    proposal = Proposal(
        generation=generation,
        slots=tuple(sorted(wanted)),
        members=members,
        cause=cause,
        reason=reason,
        since_s=work.now_s,
        short_since_s=short_since_s,
    )
    phase = advance(Machine.GENERATION, GenerationPhase.PROPOSED, GenerationPhase.PREPARING)
    work.set_island(generation=generation, generation_phase=phase, proposal=proposal)
    live = f"{len(members)} of {format_count(len(proposal.slots), 'worker')} alive"
    message = f"generation {generation} of {work.island.id} is being prepared: {reason}; {live}"
    work.emit(events.GENERATION_PREPARING, cause.value.capitalize(), message, generation=generation)
    _phase_of(work, cause, reason)


def _phase_of(work: Work, cause: Cause, reason: str) -> None:
    phase = work.job.phase
    if cause in _RESIZES and phase is JobPhase.RUNNING:
        set_phase(work, JobPhase.RESIZING, _RESIZES[cause], reason)
    elif cause in _INTERRUPTIONS and phase in _INTERRUPTED:
        set_phase(work, JobPhase.RECOVERING, _INTERRUPTIONS[cause], reason)


def _maintain(work: Work) -> None:
    """Counts newcomers in; aborts when one of those counted in is gone."""
    proposal = work.island.proposal
    assert proposal is not None
    lost = [m.slot for m in proposal.members if not _is_in(work, m.slot, m.incarnation)]
    if lost:
        reason = (
            f"worker {', '.join(map(str, lost))} was lost while generation {proposal.generation} was being prepared"
        )
        abort(work, reason)
        cause = Cause.START if proposal.cause is Cause.START else Cause.FAULT
        open_proposal(work, _remaining(work, proposal), cause, reason, short_since_s=proposal.short_since_s)
        return
    alive = [s for s in work.slots() if proposal.takes(s.index) and s.alive]
    if len(alive) != len(proposal.members):
        work.set_island(proposal=replace(proposal, members=global_ranks(alive)))


def _remaining(work: Work, proposal: Proposal) -> tuple[int, ...]:
    """The slots of an aborted proposal; of a grow, a group that lost its node again is not waited for.

    Whoever was to leave may now be the only one that holds the state: all members stay, and the change is tried again.
    """
    if proposal.cause is Cause.RESIZE and work.island.record is not None:
        return tuple(m.slot for m in work.island.record.members)
    if proposal.cause is not Cause.GROW or work.island.record is None:
        return proposal.slots
    kept = {m.slot for m in work.island.record.members}
    return tuple(i for i in proposal.slots if i in kept or work.slot(i).bound)


def abort(work: Work, reason: str) -> None:
    """Gives the proposal up; its number is never used again."""
    proposal = work.island.proposal
    if proposal is None:
        return
    phase = advance(Machine.GENERATION, work.island.generation_phase, GenerationPhase.ABORTED)
    work.set_island(proposal=None, generation_phase=phase)
    message = f"generation {proposal.generation} of {work.island.id} is given up: {reason}"
    work.emit(events.GENERATION_ABORTED, "Aborted", message, generation=proposal.generation)


def _mind_short(work: Work) -> None:
    """Slots without a place: wait for capacity, then go on without them, or wait with what must not be lost."""
    proposal = work.island.proposal
    assert proposal is not None
    bound = [i for i in proposal.slots if work.slot(i).bound]
    short = len(proposal.slots) - len(bound)
    if short == 0:
        if proposal.short_since_s:
            work.set_island(proposal=replace(proposal, short_since_s=0.0))
        if work.job.phase is JobPhase.QUEUED:
            set_phase(work, JobPhase.ADMITTED, "CapacityBack", "every missing worker has a place again")
        return
    since_s = proposal.short_since_s or work.now_s
    if not proposal.short_since_s:
        work.set_island(proposal=replace(proposal, short_since_s=since_s))
    if not work.view.settled or not work.overdue(since_s, work.timeouts.replacement_wait_s):
        return
    if len(bound) >= work.min_groups * work.per_node:
        _shrink(work, bound)
    else:
        _wait_below_minimum(work, len(bound) // work.per_node, since_s)


def _shrink(work: Work, bound: list[int]) -> None:
    proposal = work.island.proposal
    assert proposal is not None
    left = f"{len(bound)} of {format_count(len(proposal.slots), 'worker')}"
    left = left if work.job.spec.spec.runs_command else f"{left}, same global batch"
    reason = f"no replacement within {work.timeouts.replacement_wait_s:g} s: going on with {left}"
    cause = Cause.START if proposal.cause is Cause.START else Cause.SHRINK
    work.set_island(proposal=replace(proposal, slots=tuple(bound), cause=cause, reason=reason, short_since_s=0.0))
    if work.job.phase is JobPhase.RECOVERING:
        set_phase(work, JobPhase.RESIZING, "Shrinking", reason)
    elif work.job.phase is JobPhase.QUEUED:
        set_phase(work, JobPhase.ADMITTED, "Shrinking", reason)


def _wait_below_minimum(work: Work, bound: int, since_s: float) -> None:
    """Survivors keep the newest state for ``orphan_s``; then all is released, so that jobs cannot block each other."""
    proposal = work.island.proposal
    assert proposal is not None
    message = describe_wait(work, bound, since_s)
    if work.job.phase is not JobPhase.QUEUED:
        set_phase(work, JobPhase.QUEUED, "BelowMinimum", message)
    else:
        wait_in(work, "BelowMinimum", message)
    record = work.island.record
    known = {m.incarnation for m in record.members} if record is not None else set[int]()
    holding = any(s.alive and s.incarnation in known for s in work.slots())
    if holding and not work.overdue(since_s, work.timeouts.replacement_wait_s + work.timeouts.orphan_s):
        return
    abort(work, "too few nodes, everything is released")
    _release(work)


def _release(work: Work) -> None:
    """Gives all places back. A worker that is being killed keeps its place until its exit is confirmed: again then."""
    for slot in work.slots():
        if slot.alive:
            work.move_slot(slot.index, SlotState.DRAINING, reason="released: too few nodes")
        elif slot.state is SlotState.EMPTY and slot.bound:
            work.set_slot(slot.index, node="", agent_incarnation=0, address="")
