"""The table of contents of a checkpoint: which part holds which ranges of which tensors.

Every writer reports what it holds by the numbers of the tensors, in an order that all ranks derive from the state.
There, tensors of one shape stand together: so what one writer holds of a thousand of them is a few rows. Whoever seals
puts the reports together; a reader finds in the table which part manifests it needs, and reads no others.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence

from trainctl.checkpoint.layout.grid import disjoint
from trainctl.checkpoint.layout.key import StateKey, StateVersion
from trainctl.checkpoint.layout.layout import Layout
from trainctl.checkpoint.layout.placement import Placement
from trainctl.checkpoint.layout.region import Box, Flat, Region, Shape, hull, volume, whole
from trainctl.checkpoint.manifest.names import part_path
from trainctl.checkpoint.manifest.records import (
    AlikeRecord,
    ContentsManifest,
    HeldRows,
    PlacedRecord,
    region_of_row,
)
from trainctl.core.errors import CheckpointError

_Cut = tuple[tuple[tuple[int, ...], int], ...]
"""Each piece of a tensor, as at the end of a row of ``HeldRows``, and its writer."""


def in_order(shapes: Mapping[StateKey, Shape]) -> list[StateKey]:
    """The tensors of a state by their numbers."""
    return sorted(shapes, key=lambda key: (shapes[key], key.dtype, key.instance, key))


def held_rows(shapes: Mapping[StateKey, Shape], held: Iterable[tuple[StateKey, Region]]) -> HeldRows:
    """What one writer holds: number of the first tensor, how many tensors, and the region; empty ones are left out.

    Args:
        shapes: of the whole state.
        held: its regions, disjoint.
    """
    numbers = {key: number for number, key in enumerate(in_order(shapes))}
    regions: dict[StateKey, list[Region]] = {}
    for key, region in held:
        regions.setdefault(key, []).append(region)
    rows: list[tuple[int, ...]] = []
    newest: dict[tuple[int, ...], int] = {}
    for key in sorted(regions, key=numbers.__getitem__):
        # A large tensor is cut over files, which is of no interest here.
        for region in disjoint(shapes[key], regions[key]):
            ends = region if isinstance(region, Flat) else (*region.offsets, *region.lengths)
            number, at = numbers[key], newest.get(ends)
            if at is not None and rows[at][0] + rows[at][1] == number:
                rows[at] = (rows[at][0], rows[at][1] + 1, *ends)
            else:
                newest[ends] = len(rows)
                rows.append((number, 1, *ends))
    return tuple(rows)


def contents_of(
    shapes: Mapping[StateKey, Shape], held: Mapping[int, HeldRows], *, tcf: int, step: int, attempt: str
) -> ContentsManifest:
    """Puts together what all writers hold.

    Args:
        shapes: of the whole state.
        held: by writer.
        tcf: version of the format.
        step: of the checkpoint.
        attempt: of the checkpoint.

    Raises:
        CheckpointError: the writers do not hold every element once; names the first tensor.
    """
    keys = in_order(shapes)
    placed: dict[PlacedRecord, int] = {}
    tensors: list[AlikeRecord] = []
    for (first, stop), cut in _alike(keys, shapes, held):
        key = keys[first]
        shape = shapes[key]
        if not _once(shape, [region_of_row(ends) for ends, _ in cut]):
            raise CheckpointError(
                f"{attempt}: expected every element of {key} (shape {list(shape)}) in one part, found "
                + (
                    ", ".join(f"{_said(region_of_row(ends))} in part {writer}" for ends, writer in cut[:5])
                    or "none in any"
                ),
                hint="discard the attempt; the next save starts a new one",
            )
        tensors.append(
            AlikeRecord(
                dtype=key.dtype,
                instance=key.instance,
                shape=shape,
                placed=placed.setdefault(_placed(shape, cut), len(placed)),
                fqns=tuple(k.fqn for k in keys[first:stop]),
                kinds=tuple(k.kind for k in keys[first:stop]),
            )
        )
    return ContentsManifest(
        tcf=tcf,
        step=step,
        attempt=attempt,
        placed=tuple(placed),
        tensors=tuple(tensors),
    )


def _once(shape: Shape, regions: Sequence[Region]) -> bool:
    """Whether they are the tensor, each element once."""
    size = volume(whole(shape))
    return sum(map(volume, regions)) == size == sum(map(volume, disjoint(shape, regions)))


def _placed(shape: Shape, cut: _Cut) -> PlacedRecord:
    regions = [region_of_row(ends) for ends, _ in cut]
    around = [hull(shape, region) for region in regions]
    boxes = tuple(ends if isinstance(region, Box) else () for (ends, _), region in zip(cut, regions, strict=True))
    return PlacedRecord(
        writers=tuple(writer for _, writer in cut),
        starts=tuple(run.start for run in around),
        stops=tuple(run.stop for run in around),
        boxes=boxes if any(boxes) else None,
    )


def _said(region: Region) -> str:
    return f"{region.start}:{region.stop}" if isinstance(region, Flat) else str(region)


def _alike(
    keys: Sequence[StateKey], shapes: Mapping[StateKey, Shape], held: Mapping[int, HeldRows]
) -> Iterator[tuple[tuple[int, int], _Cut]]:
    """Ranges of numbers inside which all tensors are alike and lie alike, and how they are cut."""
    kinds = [(shapes[key], key.dtype, key.instance) for key in keys]
    edges = {number for number in range(1, len(keys)) if kinds[number] != kinds[number - 1]} | {0, len(keys)}
    for rows in held.values():
        edges.update(edge for first, count, *_ in rows for edge in (first, first + count))
    cuts = sorted(edges)
    pieces: list[list[tuple[tuple[int, ...], int]]] = [[] for _ in cuts]
    for writer, rows in held.items():
        for first, count, *ends in rows:
            for at in range(bisect.bisect_left(cuts, first), bisect.bisect_left(cuts, first + count)):
                pieces[at].append((tuple(ends), writer))
    for at, (first, stop) in enumerate(itertools.pairwise(cuts)):
        if first < stop <= len(keys):
            yield (first, stop), tuple(sorted(pieces[at]))


class ContentsTable:
    """What a reader looks up in it.

    Args:
        contents: the table.
        version: of the checkpoint, in all keys.

    Attributes:
        shapes: of every tensor of the checkpoint.
    """

    def __init__(self, contents: ContentsManifest, version: StateVersion) -> None:
        self._placed = contents.placed
        self._alike = {
            StateKey(fqn, kind, alike.dtype, alike.instance, version): alike
            for alike in contents.tensors
            for fqn, kind in zip(alike.fqns, alike.kinds, strict=True)
        }
        self.shapes: Mapping[StateKey, Shape] = {key: alike.shape for key, alike in self._alike.items()}

    def layout(self, keys: Iterable[StateKey]) -> Layout:
        """How some of the tensors lie over the parts, each of which is a holder (``part_holder``).

        Raises:
            PlanError: a range is not inside its tensor.
        """
        made: dict[tuple[int, Shape], Placement] = {}
        found: dict[StateKey, Placement] = {}
        for key in keys:
            alike = self._alike[key]
            which = alike.placed, alike.shape
            if which not in made:
                made[which] = _placement(alike.shape, self._placed[alike.placed])
            found[key] = made[which]
        return Layout.placed(found)


def part_holder(writer: int) -> str:
    """Holder name of a part: ``part:parts/w00003.json``."""
    return f"part:{part_path(writer)}"


def _placement(shape: Shape, placed: PlacedRecord) -> Placement:
    regions: dict[str, tuple[Region, ...]] = {}
    for writer, region in zip(placed.writers, placed.regions, strict=True):
        holder = part_holder(writer)
        regions[holder] = (*regions.get(holder, ()), region)
    return Placement(shape, regions)
