"""Parts of a tensor: boxes and flat row-major ranges of global elements, and how one turns into the other.

Source: the decomposed representation of irregular shards in ByteCheckpoint (NSDI '25), section 3.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from trainctl.core.errors import PlanError

Shape = tuple[int, ...]


class Box(NamedTuple):
    """The elements with ``offsets[i] <= index[i] < offsets[i] + lengths[i]`` for every dim i."""

    offsets: tuple[int, ...]
    lengths: tuple[int, ...]

    def __str__(self) -> str:
        dims = (f"{start}:{start + length}" for start, length in zip(self.offsets, self.lengths, strict=True))
        return f"[{', '.join(dims)}]"


class Flat(NamedTuple):
    """The elements ``start <= i < stop`` of the tensor in row-major order."""

    start: int
    stop: int

    @property
    def volume(self) -> int:
        """Number of elements."""
        return self.stop - self.start

    def __str__(self) -> str:
        return f"elements {self.start}:{self.stop}"


Region = Box | Flat


def whole(shape: Shape) -> Flat:
    """All elements of a tensor."""
    return Flat(0, math.prod(shape))


def volume(region: Region) -> int:
    """Number of elements in the region."""
    return region.volume if isinstance(region, Flat) else math.prod(region.lengths)


def order_of(region: Region) -> tuple[bool, Region]:
    """For sorting regions of one tensor: flat ranges first."""
    return isinstance(region, Box), region


def check_region(shape: Shape, region: Region) -> None:
    """Sees that the region lies inside a tensor of this shape.

    Raises:
        PlanError: it does not.
    """
    if isinstance(region, Flat):
        inside = 0 <= region.start <= region.stop <= math.prod(shape)
    else:
        inside = len(shape) == len(region.offsets) == len(region.lengths) and all(
            min(o, n) >= 0 and o + n <= d for d, o, n in zip(shape, region.offsets, region.lengths, strict=True)
        )
    if not inside:
        raise PlanError(f"expected a region inside a tensor of shape {list(shape)}, found {region}")


def flat_to_boxes(shape: Shape, region: Flat) -> tuple[Box, ...]:
    """The range as disjoint boxes in row-major order: at most 2k-1 of them for k dims."""
    return tuple(Box(o, n) for o, n in _boxes(shape, region.start, region.stop))


def flat_in_box(box: Box, run: Flat) -> tuple[Box, ...]:
    """What a range of a box's own elements, row-major, is of the tensor: in order, as flat shards of a slice need it.

    Raises:
        PlanError: the range is not inside the box.
    """
    check_region(box.lengths, run)
    return tuple(
        Box(tuple(map(operator.add, box.offsets, part.offsets)), part.lengths)
        for part in flat_to_boxes(box.lengths, run)
    )


def part_of(region: Region, run: Flat) -> tuple[Region, ...]:
    """What a range of a region's own elements, row-major, is of the tensor, in order: a flat range, or of a box boxes.

    Raises:
        PlanError: the range is not inside the region.
    """
    if isinstance(region, Box):
        return flat_in_box(region, run)
    check_region((region.volume,), run)
    return (Flat(region.start + run.start, region.start + run.stop),)


def _boxes(shape: Shape, start: int, stop: int) -> Iterator[tuple[Shape, Shape]]:
    if start >= stop:
        return
    if len(shape) <= 1:
        yield ((start,), (stop - start,)) if shape else ((), ())
        return
    row = math.prod(shape[1:])
    first, head = divmod(start, row)
    last, tail = divmod(stop, row)
    if first == last:
        yield from _prefixed(first, _boxes(shape[1:], head, tail))
        return
    if head:
        yield from _prefixed(first, _boxes(shape[1:], head, row))
        first += 1
    if last > first:
        yield (first, *(0 for _ in shape[1:])), (last - first, *shape[1:])
    if tail:
        yield from _prefixed(last, _boxes(shape[1:], 0, tail))


def _prefixed(index: int, boxes: Iterable[tuple[Shape, Shape]]) -> Iterator[tuple[Shape, Shape]]:
    for offsets, lengths in boxes:
        yield (index, *offsets), (1, *lengths)


def region_to_runs(shape: Shape, region: Region) -> Iterator[Flat]:
    """The region as maximal row-major ranges, in ascending order; nothing for an empty region."""
    if volume(region) == 0:
        return
    if isinstance(region, Flat):
        yield region
        return
    # Dims after `split` are covered whole, so one run spans them; dims before it enumerate the runs.
    split = len(shape) - 1
    while split > 0 and region.lengths[split] == shape[split]:
        split -= 1
    if split < 0:
        yield Flat(0, 1)
        return
    inner = math.prod(shape[split + 1 :])
    length = region.lengths[split] * inner
    for base in _bases(shape, region, split):
        start = (base * shape[split] + region.offsets[split]) * inner
        yield Flat(start, start + length)


def _bases(shape: Shape, box: Box, split: int) -> Iterator[int]:
    """Row-major indices, over the dims before ``split``, of the rows that the box touches."""
    bases: Iterable[int] = (0,)
    for dim in range(split):
        bases = _extended(bases, shape[dim], range(box.offsets[dim], box.offsets[dim] + box.lengths[dim]))
    yield from bases


def _extended(bases: Iterable[int], size: int, indices: range) -> Iterator[int]:
    for base in bases:
        for index in indices:
            yield base * size + index


def intersect(a: Region, b: Region) -> Region | None:
    """What two regions of one tensor have in common; None if nothing.

    Both are boxes or both are flat; mixed kinds meet as runs (``region_to_runs``).

    Raises:
        PlanError: one is a box and the other is flat.
    """
    if isinstance(a, Flat) and isinstance(b, Flat):
        start, stop = max(a.start, b.start), min(a.stop, b.stop)
        return Flat(start, stop) if start < stop else None
    if isinstance(a, Box) and isinstance(b, Box):
        low = tuple(map(max, a.offsets, b.offsets))
        ends = zip(a.offsets, a.lengths, b.offsets, b.lengths, strict=True)
        lengths = tuple(min(ao + an, bo + bn) - lo for (ao, an, bo, bn), lo in zip(ends, low, strict=True))
        return Box(low, lengths) if all(length > 0 for length in lengths) else None
    raise PlanError(f"expected two boxes or two flat ranges, found {a} and {b}", hint="turn both into runs first")


def offset_in(shape: Shape, region: Region, position: int) -> int:
    """Where global element ``position`` lies in a row-major array of the region's elements only.

    What is contiguous in the tensor and inside the region is contiguous there, too, so a run needs this only once.
    """
    if isinstance(region, Flat):
        return position - region.start
    offset, stride = 0, 1
    for size, start, length in zip(reversed(shape), reversed(region.offsets), reversed(region.lengths), strict=True):
        position, index = divmod(position, size)
        offset += (index - start) * stride
        stride *= length
    return offset


def one_run(shape: Shape, region: Region) -> Region:
    """The region as a flat range, if its elements follow each other in the tensor; else as it is."""
    if isinstance(region, Flat) or volume(region) == 0:
        return region
    first, stop = _ends(shape, region)
    return Flat(first, stop) if stop - first == volume(region) else region


def hull(shape: Shape, region: Region) -> Flat:
    """The shortest flat range that holds the region; an empty one for an empty region."""
    if isinstance(region, Flat):
        return region
    return Flat(*_ends(shape, region)) if volume(region) else Flat(0, 0)


def _ends(shape: Shape, box: Box) -> tuple[int, int]:
    first = last = 0
    for size, offset, length in zip(shape, box.offsets, box.lengths, strict=True):
        first, last = first * size + offset, last * size + offset + length - 1
    return first, last + 1


def common(shape: Shape, a: Region, b: Region) -> tuple[Region, ...]:
    """What two regions have in common, in row-major order: a few regions, flat where they can be."""
    a, b = one_run(shape, a), one_run(shape, b)
    if isinstance(a, Flat) is isinstance(b, Flat):
        shared = [intersect(a, b)]
    else:
        run, box = (a, b) if isinstance(a, Flat) else (b, a)
        clipped = intersect(run, hull(shape, box))
        parts = flat_to_boxes(shape, clipped) if isinstance(clipped, Flat) else ()
        shared = [intersect(part, box) for part in parts]
    return tuple(one_run(shape, region) for region in shared if region is not None)


def merge_runs(runs: Iterable[Flat]) -> tuple[Flat, ...]:
    """The union of ranges as disjoint, non-touching ranges in ascending order."""
    merged: list[Flat] = []
    for run in sorted(runs):
        if run.volume == 0:
            continue
        if merged and run.start <= merged[-1].stop:
            merged[-1] = Flat(merged[-1].start, max(merged[-1].stop, run.stop))
        else:
            merged.append(run)
    return tuple(merged)
