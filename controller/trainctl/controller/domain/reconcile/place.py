"""Giving slots a place on agents, and empty places a new worker life."""

from __future__ import annotations

import itertools

from trainctl.controller.domain import events
from trainctl.controller.domain.job_state import with_slots
from trainctl.controller.domain.placement import describe_room, group_slots, place_groups, too_small, usable_agents
from trainctl.controller.domain.reconcile.lifecycle import set_phase, wait_in
from trainctl.controller.domain.reconcile.resize import on_draining_node
from trainctl.controller.domain.reconcile.work import Work
from trainctl.controller.domain.states import JobPhase, SlotState
from trainctl.controller.domain.view import AgentView
from trainctl.core.units import format_count, format_duration


def place(work: Work) -> None:
    """Binds groups that should have a place and have none, as far as there are agents for them."""
    groups = _wanted_groups(work)
    if not groups:
        return
    at_least = _at_least(work, groups)
    placement = place_groups(groups, _agents(work), at_least=at_least, resources=work.resources)
    for group, agent in placement.agents.items():
        _bind(work, group, agent)
    if placement.agents and work.job.phase is JobPhase.QUEUED and work.island.proposal is None:
        set_phase(work, JobPhase.ADMITTED, "Placed", f"placed {placement.reason}")
    elif not placement.agents and work.job.phase is JobPhase.QUEUED and work.island.proposal is None:
        hopeless = too_small(work.view.agents, work.resources)
        wait_in(work, "WaitingForCapacity", f"waiting for capacity: {placement.reason}{hopeless}")


def _wanted_groups(work: Work) -> list[int]:
    """Groups without a place that should have one now: lost ones of the proposal, else those missing to the target."""
    island = work.island
    if island.proposal is not None:
        candidates = sorted({index // work.per_node for index in island.proposal.slots})
        return [g for g in candidates if _vacant(work, g)]
    if _may_start(work) or _may_grow(work):
        return _vacant_groups(work, work.target_groups - len(_staying_groups(work)))
    return []


def _vacant_groups(work: Work, count: int) -> list[int]:
    """The lowest groups without a place; there is always another: where one moves, two need a number for a while."""
    numbers = (g for g in itertools.count() if _vacant(work, g))
    return list(itertools.islice(numbers, max(0, count)))


def _staying_groups(work: Work) -> set[int]:
    """Groups with a place that they keep."""
    return {g for g in {s.index // work.per_node for s in work.slots() if s.bound} if not on_draining_node(work, g)}


def _may_start(work: Work) -> bool:
    """All or nothing: what an earlier stay still occupies is given back first."""
    return work.job.phase is JobPhase.QUEUED and not any(slot.bound for slot in work.slots())


def _may_grow(work: Work) -> bool:
    if work.job.phase is not JobPhase.RUNNING or not work.island.entered or not work.view.settled:
        return False
    return len(_staying_groups(work)) < work.target_groups and work.due(work.island.grow_after_s)


def has_room_elsewhere(work: Work) -> bool:
    """Whether a node would take one more group of a running job now."""
    return _may_grow(work) and bool(_agents(work))


def _vacant(work: Work, group: int) -> bool:
    indices = group_slots(group, work.per_node)
    slots = work.island.slots[indices.start : indices.stop]
    return all(s.state is SlotState.EMPTY and not s.bound for s in slots)


def _at_least(work: Work, groups: list[int]) -> int:
    """At the start all of the target; after waiting long enough, or in a running job, what makes sense."""
    island = work.island
    if island.proposal is not None:
        bound = {s.index // work.per_node for s in work.slots() if s.bound and island.proposal.takes(s.index)}
        return max(1, work.min_groups - len(bound)) if work.job.phase is JobPhase.QUEUED else 1
    if work.job.phase is not JobPhase.QUEUED:
        return 1
    patience_s = work.timeouts.replacement_wait_s
    if work.min_groups < len(groups) and work.due(work.job.phase_since_s + patience_s):
        return work.min_groups
    return len(groups)


def _agents(work: Work) -> list[AgentView]:
    """Agents with room for a group, without those that run one already or still have a worker of ours to get rid of."""
    taken = {s.agent_incarnation for s in work.slots() if s.bound}
    usable = usable_agents(work.view.agents, work.free, resources=work.resources, timeouts=work.timeouts)
    newest = work.view.agents.newest
    return [a for a in usable if a.agent_incarnation not in taken and newest(a.node) == a.agent_incarnation]


def _bind(work: Work, group: int, agent: AgentView) -> None:
    place = {"node": agent.node, "agent_incarnation": agent.agent_incarnation, "address": agent.address}
    for index in group_slots(group, work.per_node):
        if index >= len(work.island.slots):
            work.set_island(slots=with_slots(work.island.slots, index + 1, work.now_s))
        work.set_slot(index, **place)


def fill(work: Work) -> None:
    """Puts a new life into every empty slot that has a place. The old one's exit is confirmed, or its agent is lost."""
    for slot in work.slots():
        if slot.bound and slot.state is SlotState.EMPTY:
            incarnation = work.ids.incarnation()
            work.move_slot(slot.index, SlotState.STARTING, incarnation=incarnation, pid=0, started_s=work.now_s)
            message = f"worker {slot.index} starts on {slot.node}"
            work.emit(
                events.WORKER_STARTING, "Placed", message, slot=slot.index, incarnation=incarnation, node=slot.node
            )


def describe_wait(work: Work, bound: int, since_s: float) -> str:
    """Why a job below its minimum waits."""
    least, waited = format_count(work.min_groups, "node"), format_duration(work.now_s - since_s)
    room = describe_room(work.resources)
    return f"{bound} of at least {least} left for {waited}; needs {work.min_groups - bound} more with {room} each"
