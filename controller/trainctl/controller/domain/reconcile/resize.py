"""Which groups should train, and how the members come to be those: newcomers boot first, then all wait at a boundary.

Fewer are wanted after a scale; others are wanted where a node is drained. Nobody leaves before whoever comes instead
is ready, and nobody at all if fewer than ``nodes.min`` would be left.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from trainctl.controller.domain.job_state import Cause
from trainctl.controller.domain.placement import group_slots
from trainctl.controller.domain.reconcile.work import Work
from trainctl.controller.domain.states import SlotState
from trainctl.core.units import format_count


@dataclass(frozen=True, slots=True, kw_only=True)
class Resize:
    """A change of members.

    Attributes:
        slots: who shall train afterwards, ascending.
        cause: grow, or resize where somebody leaves.
        reason: one sentence.
        moved: slots that join or leave.
    """

    slots: tuple[int, ...]
    cause: Cause
    reason: str
    moved: tuple[int, ...]


def on_draining_node(work: Work, group: int) -> bool:
    """Whether the node of a group is being emptied."""
    draining = work.draining
    return bool(draining) and any(work.slot(i).node in draining for i in _indices(work, group))


def members_groups(work: Work) -> tuple[int, ...]:
    """Groups of the committed generation, ascending."""
    record = work.island.record
    return tuple(sorted({m.slot // work.per_node for m in record.members})) if record is not None else ()


def newcomer_groups(work: Work) -> tuple[int, ...]:
    """Groups that have a place but are no members, ascending; those on their way out are none."""
    known = set(members_groups(work))
    there = {s.index // work.per_node for s in work.slots() if s.bound and (s.alive or s.state is SlotState.EMPTY)}
    return tuple(sorted(there - known))


def next_resize(work: Work, *, room_elsewhere: bool) -> Resize | None:
    """The change that is due now; None if the members are right, or somebody is still to come.

    Args:
        work: of an island that trains in a committed generation.
        room_elsewhere: another node could take a group now.
    """
    groups, target = members_groups(work), work.target_groups
    newcomers = newcomer_groups(work)
    ready = [g for g in newcomers if _ready(work, g)]
    draining = [g for g in groups if on_draining_node(work, g)]
    staying = [g for g in groups if g not in draining][:target]
    if len(ready) < len(newcomers):
        return None
    if draining and room_elsewhere and len(staying) + len(newcomers) < target:
        return None
    coming = ready[: max(0, target - len(staying))]
    least = work.min_groups - len(staying) - len(coming)
    wanted = tuple(sorted([*staying, *coming, *draining[: max(0, least)]]))
    if not set(wanted) & set(groups) and not work.job.spec.spec.runs_command:
        wanted = tuple(sorted([*groups, *coming]))  # somebody who holds the state has to hand it over first
    if wanted == groups:
        return None
    return _change(work, groups, wanted, draining)


def _change(work: Work, groups: tuple[int, ...], wanted: tuple[int, ...], draining: Iterable[int]) -> Resize:
    leaving = sorted(set(groups) - set(wanted))
    joining = sorted(set(wanted) - set(groups))
    before, after = (len(g) * work.per_node for g in (groups, wanted))
    if not leaving:
        cause, reason = Cause.GROW, f"grow from {before} to {format_count(after, 'worker')}"
    else:
        drained = sorted({work.slot(i).node for g in leaving if g in draining for i in _indices(work, g)})
        why = f"drain of {', '.join(drained)}" if drained else f"wanted are {format_count(work.target_groups, 'node')}"
        how = f"{before} to {format_count(after, 'worker')}" if before != after else format_count(after, "worker")
        cause, reason = Cause.RESIZE, f"{why}: {how}"
    slots = tuple(i for g in wanted for i in group_slots(g, work.per_node))
    moved = tuple(i for g in (*leaving, *joining) for i in group_slots(g, work.per_node))
    return Resize(slots=slots, cause=cause, reason=reason, moved=moved)


def _ready(work: Work, group: int) -> bool:
    return all(work.slot(i).state is SlotState.READY for i in _indices(work, group))


def _indices(work: Work, group: int) -> range:
    return group_slots(group, work.per_node)
