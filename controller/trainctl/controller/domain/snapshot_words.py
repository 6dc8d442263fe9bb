"""Snapshots in the memory of nodes, in words: what the newest is worth, and why one is lost. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from trainctl.controller.domain.snapshots import SnapshotFigures, missing_parts
from trainctl.core.records.snapshot import SnapshotHeld, SnapshotRef
from trainctl.core.units import format_bytes, format_count, format_duration

_NAMED = 5
"""Parts and nodes that a sentence names."""


def why_lost(
    figures: SnapshotFigures,
    there: Sequence[tuple[SnapshotRef, Mapping[str, SnapshotHeld]]],
    *,
    nodes: Collection[str],
    lost: Collection[str],
    on_disk: bool = False,
) -> str:
    """Why the newest snapshot that is known of cannot be loaded, as a part of a sentence; empty if it can.

    Args:
        figures: what was known of it.
        there: what the nodes have now.
        nodes: those with members of the next generation.
        lost: attempts that could not be loaded.
        on_disk: they are on the nodes' disks, not in their memory.
    """
    nothing: tuple[SnapshotRef | None, Mapping[str, SnapshotHeld]] = (None, {})
    ref, held = max(there, key=lambda one: one[0].step, default=nothing)
    known = figures.newest
    if ref is None or (known is not None and known.step > ref.step):
        ref, held = known, {}
    if ref is None:
        return f"none was made in generation {figures.generation}: {figures.stopped}" if figures.stopped else ""
    if ref.attempt in lost:
        return f"that of step {ref.step} could not be loaded"
    missing = missing_parts(held) if held else tuple(range(figures.parts))
    if not missing:
        return ""
    parts = f"part {missing[0]}" if len(missing) == 1 else f"parts {_names([str(part) for part in missing])}"
    # In one generation each node has the same parts of every snapshot, also of one that nobody told of yet.
    keepers = [share.node for share in figures.nodes if set(share.parts) & set(missing)]
    now = {True: f"not {'on its disk' if on_disk else 'in its memory'} any more", False: "no worker is there now"}
    only = _names([f"{node} ({now[node in nodes]})" for node in keepers])
    total = max((one.parts for one in held.values()), default=figures.parts)
    return f"that of step {ref.step} lacks {parts} of {total}" + (f", which only {only} had" if only else "")


def sentences(figures: SnapshotFigures, *, step: int, now_s: float, on_disk: bool = False) -> tuple[str, ...]:
    """The newest snapshot of a job that trains, what it is worth, and why there will be no newer one.

    Args:
        figures: what is known.
        step: the newest committed one.
        now_s: Unix seconds.
        on_disk: it is on the nodes' disks, not in their memory.
    """
    said: list[str] = []
    if figures.newest is not None:
        age = f", {format_duration(max(0.0, now_s - figures.complete_s))} old" if figures.complete_s else ""
        alone, alike, parts = figures.uncopied, figures.in_one_domain, format_count(figures.parts, "part")
        twice = f"each part twice, {alike} of {parts} in one failure domain only" if alike else "each part twice"
        copies = f"{alone} of its {parts} on one node only" if alone else twice
        where = f"{format_count(len(figures.nodes), 'node')} ({format_bytes(figures.size_bytes)}, {copies})"
        back = max(0, step - figures.newest.step)
        place = "on the disks" if on_disk else "in the memory"
        said.append(
            f"the newest snapshot is of step {figures.newest.step}{age}, {place} of {where}: "
            f"where no worker is left that holds what is lost, {format_count(back, 'step')} would be repeated"
        )
    if figures.stopped:
        said.append(f"generation {figures.generation} makes no more snapshots: {figures.stopped}")
    return tuple(said)


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
