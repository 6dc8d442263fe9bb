"""The table of contents of a checkpoint: which part holds which ranges of which tensors.

Every writer reports what it holds by the numbers of the tensors, in an order that all ranks derive from the state.
There, tensors of one shape stand together: so what one writer holds of a thousand of them is a few rows. Whoever seals
puts the reports together; a reader finds in the table which part manifests it needs, and reads no others.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence

from trainctl.checkpoint.layout.key import StateKey, StateVersion
from trainctl.checkpoint.layout.layout import Layout
from trainctl.checkpoint.layout.placement import Placement
from trainctl.checkpoint.layout.region import Flat, Region, Shape, volume, whole
from trainctl.checkpoint.manifest.names import part_path
from trainctl.checkpoint.manifest.records import AlikeRecord, ContentsManifest, HeldRows, PlacedRecord
from trainctl.core.errors import CheckpointError

_Cut = tuple[tuple[int, int, int], ...]
"""Start, stop and writer of each piece of a tensor."""


def in_order(shapes: Mapping[StateKey, Shape]) -> list[StateKey]:
    """The tensors of a state by their numbers."""
    return sorted(shapes, key=lambda key: (shapes[key], key.dtype, key.instance, key))


def held_rows(shapes: Mapping[StateKey, Shape], held: Iterable[tuple[StateKey, Flat]]) -> HeldRows:
    """What one writer holds: ``(number of the first tensor, how many tensors, start, stop)``; empty runs are left out.

    Args:
        shapes: of the whole state.
        held: its runs, disjoint.
    """
    numbers = {key: number for number, key in enumerate(in_order(shapes))}
    rows: list[tuple[int, int, int, int]] = []
    newest: dict[tuple[int, int], int] = {}
    for number, run in _joined(sorted((numbers[key], run) for key, run in held if run.volume)):
        at = newest.get(run)
        if at is not None and rows[at][0] + rows[at][1] == number:
            rows[at] = (rows[at][0], rows[at][1] + 1, *run)
        else:
            newest[run] = len(rows)
            rows.append((number, 1, *run))
    return tuple(rows)


def _joined(runs: Iterable[tuple[int, Flat]]) -> Iterator[tuple[int, Flat]]:
    """Touching runs of a tensor as one: a large tensor is cut over files, which is of no interest here."""
    last: tuple[int, Flat] | None = None
    for number, run in runs:
        if last is not None and last[0] == number and last[1].stop == run.start:
            last = (number, Flat(last[1].start, run.stop))
            continue
        if last is not None:
            yield last
        last = (number, run)
    if last is not None:
        yield last


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
    placed: dict[_Cut, int] = {}
    tensors = []
    for (first, stop), cut in _alike(keys, shapes, held):
        key = keys[first]
        shape = shapes[key]
        ends = (0, *(end for _, end, _ in cut))
        if any(start != end for (start, _, _), end in zip(cut, ends, strict=False)) or ends[-1] != volume(whole(shape)):
            raise CheckpointError(
                f"{attempt}: expected every element of {key} (shape {list(shape)}) in one part, found "
                + (", ".join(f"{start}:{end} in part {writer}" for start, end, writer in cut[:5]) or "none in any"),
                hint="discard the attempt; the next save starts a new one",
            )
        tensors.append(
            AlikeRecord(
                dtype=key.dtype,
                instance=key.instance,
                shape=shape,
                placed=placed.setdefault(cut, len(placed)),
                fqns=tuple(k.fqn for k in keys[first:stop]),
                kinds=tuple(k.kind for k in keys[first:stop]),
            )
        )
    return ContentsManifest(
        tcf=tcf,
        step=step,
        attempt=attempt,
        placed=tuple(
            PlacedRecord(
                writers=tuple(writer for _, _, writer in cut),
                starts=tuple(start for start, _, _ in cut),
                stops=tuple(stop for _, stop, _ in cut),
            )
            for cut in placed
        ),
        tensors=tuple(tensors),
    )


def _alike(
    keys: Sequence[StateKey], shapes: Mapping[StateKey, Shape], held: Mapping[int, HeldRows]
) -> Iterator[tuple[tuple[int, int], _Cut]]:
    """Ranges of numbers inside which all tensors are alike and lie alike, and how they are cut."""
    kinds = [(shapes[key], key.dtype, key.instance) for key in keys]
    edges = {number for number in range(1, len(keys)) if kinds[number] != kinds[number - 1]} | {0, len(keys)}
    for rows in held.values():
        edges.update(edge for first, count, _, _ in rows for edge in (first, first + count))
    cuts = sorted(edges)
    pieces: list[list[tuple[int, int, int]]] = [[] for _ in cuts]
    for writer, rows in held.items():
        for first, count, start, stop in rows:
            for at in range(bisect.bisect_left(cuts, first), bisect.bisect_left(cuts, first + count)):
                pieces[at].append((start, stop, writer))
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
        found = {}
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
    for writer, start, stop in zip(placed.writers, placed.starts, placed.stops, strict=True):
        holder = part_holder(writer)
        regions[holder] = (*regions.get(holder, ()), Flat(start, stop))
    return Placement(shape, regions)
