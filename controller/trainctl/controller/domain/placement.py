"""Placement: groups of worker slots on nodes, each group whole or not at all.

A *group* is the part of an island that runs on one node: slots ``[k * per_node, (k + 1) * per_node)`` are group ``k``.
Two groups of a job never share an agent: ``workersPerNode`` means what it says, and one node's death costs one group.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from trainctl.controller.domain.job_state import JobState
from trainctl.controller.domain.view import AgentView
from trainctl.core.records.spec import ResourcesSpec
from trainctl.core.timeouts import Timeouts
from trainctl.core.units import format_count


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Which group goes where, and one sentence that says why not more."""

    agents: Mapping[int, AgentView]
    reason: str


def group_slots(group: int, per_node: int) -> range:
    """Slots of one group."""
    return range(group * per_node, (group + 1) * per_node)


def slots_used(state: JobState) -> Mapping[int, int]:
    """Slots that a job occupies, by agent incarnation: what the shell subtracts to know the free ones."""
    return Counter(s.agent_incarnation for island in state.islands for s in island.slots if s.bound)


def usable_agents(
    agents: Iterable[AgentView], free: Mapping[int, int], *, resources: ResourcesSpec, timeouts: Timeouts
) -> tuple[AgentView, ...]:
    """Agents that can take one more group now, in a fixed order (natural order of node names)."""
    fitting = (
        a
        for a in agents
        if a.connected
        and not a.process_exited
        and not a.cordoned
        and a.last_heard_age_s <= timeouts.suspect_s
        and free.get(a.agent_incarnation, 0) >= resources.workers_per_node
        and (not resources.accelerators_per_node or a.device != "cpu")
    )
    return tuple(sorted(fitting, key=lambda a: (len(a.node), a.node, a.agent_incarnation)))


def describe_room(resources: ResourcesSpec) -> str:
    """What a group needs of a node."""
    count = resources.workers_per_node
    accelerators = " with an accelerator" if resources.accelerators_per_node else ""
    return f"{count} free worker slot{'s' if count > 1 else ''}{accelerators}"


def too_small(agents: Iterable[AgentView], resources: ResourcesSpec) -> str:
    """The clause that says that no node takes a group even when it is empty; empty if one does, or none is known."""
    largest = max((agent.slots for agent in agents if agent.connected), default=0)
    if not 0 < largest < resources.workers_per_node:
        return ""
    return (
        f"; no node is that large: the largest has {format_count(largest, 'slot')} "
        f"(lower spec.resources.workersPerNode to {largest}, or add a larger node)"
    )


def place_groups(
    groups: Sequence[int], agents: Sequence[AgentView], *, at_least: int, resources: ResourcesSpec
) -> Placement:
    """Places as many of ``groups`` as there are agents, but at least ``at_least`` of them or none.

    Args:
        groups: groups without a place, ascending.
        agents: usable agents in order; each takes one group.
        at_least: fewest that make sense.
        resources: of a group.
    """
    found = min(len(groups), len(agents))
    workers = describe_room(resources)
    if found < at_least or found == 0:
        return Placement(
            agents={}, reason=f"needs {format_count(at_least, 'node')} with {workers} each, found {len(agents)}"
        )
    chosen = dict(zip(groups, agents, strict=False))
    where = ", ".join(f"group {group} on {agent.node}" for group, agent in chosen.items())
    return Placement(
        agents=chosen, reason=f"{found} of {format_count(len(groups), 'node')} with {workers} each: {where}"
    )
