"""A tensor cut into cells, wherever the set of those who hold something of it changes, by nested slabs.

Along the first dim it is cut where a region begins or ends; what is between two cuts is cut along the next dim, and so
on. Slabs that touch and are cut alike are one, so that the cells depend only on who has which elements, never on the
regions in which these were told. A flat range is a few boxes (``flat_to_boxes``).
"""

from __future__ import annotations

import bisect
import itertools
import math
import operator
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

from trainctl.checkpoint.layout.region import (
    Box,
    Flat,
    Region,
    Shape,
    flat_to_boxes,
    merge_runs,
    one_run,
    order_of,
    volume,
)

Holders = tuple[str, ...]
"""Ascending; empty where nobody has it."""


class Cell(NamedTuple):
    """A region over which the set of holders does not change."""

    region: Region
    holders: Holders


class _Slab(NamedTuple):
    """Indices of one dim, and how what they have is cut along the next; at the last dim, who has it."""

    start: int
    stop: int
    below: tuple[_Slab, ...]
    holders: Holders


class Grid:
    """The cells of a tensor of two dims or more.

    Args:
        shape: of the tensor.
        held: regions and who holds them; they may overlap.
    """

    def __init__(self, shape: Shape, held: Iterable[tuple[Region, str]]) -> None:
        self._shape = shape
        by_box: dict[Box, list[str]] = {}
        for region, holder in held:
            for box in _boxes(shape, region) if volume(region) else ():
                by_box.setdefault(box, []).append(holder)
        self._slabs = _swept(tuple(by_box.items()), 0)

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """All that somebody holds, in row-major order of where they begin; flat where they can be."""
        return tuple(self._cells(self._slabs, (), ()))

    def cut(self, region: Region) -> Iterator[Cell]:
        """A region in the cells that it meets; where nobody holds anything, the holders are empty."""
        for box in _boxes(self._shape, region):
            for offsets, lengths, holders in _met(self._slabs, box.offsets, box.lengths):
                yield Cell(one_run(self._shape, Box(offsets, lengths)), holders)

    def sizes(self, region: Region) -> Iterator[tuple[int, Holders]]:
        """How many elements ``cut`` gives of which holders."""
        for box in _boxes(self._shape, region):
            for _, lengths, holders in _met(self._slabs, box.offsets, box.lengths):
                yield math.prod(lengths), holders

    def _cells(self, slabs: Sequence[_Slab], offsets: Shape, lengths: Shape) -> Iterator[Cell]:
        for start, stop, below, holders in slabs:
            at, size = (*offsets, start), (*lengths, stop - start)
            if below:
                yield from self._cells(below, at, size)
            else:
                yield Cell(one_run(self._shape, Box(at, size)), holders)


def union(shape: Shape, regions: Sequence[Region]) -> tuple[Region, ...]:
    """What some regions of a tensor of two dims or more cover, as disjoint ones in the order of ``order_of``.

    It depends only on which elements these are.
    """
    found = [cell.region for cell in Grid(shape, ((region, "") for region in regions)).cells]
    runs = merge_runs(region for region in found if isinstance(region, Flat))
    return (*runs, *sorted((region for region in found if isinstance(region, Box)), key=order_of))


def disjoint(shape: Shape, regions: Iterable[Region]) -> tuple[Region, ...]:
    """The same as few disjoint regions of any tensor: flat ranges where all can be."""
    held = [one_run(shape, region) for region in regions if volume(region)]
    runs = [region for region in held if isinstance(region, Flat)]
    if len(held) <= 1:
        return tuple(held)
    return merge_runs(runs) if len(runs) == len(held) else union(shape, held)


def _boxes(shape: Shape, region: Region) -> tuple[Box, ...]:
    return flat_to_boxes(shape, region) if isinstance(region, Flat) else (region,)


def _swept(held: Sequence[tuple[Box, Sequence[str]]], dim: int) -> tuple[_Slab, ...]:
    edges: dict[int, tuple[list[int], list[int]]] = {}
    for number, (box, _) in enumerate(held):
        start = box.offsets[dim]
        edges.setdefault(start, ([], []))[0].append(number)
        edges.setdefault(start + box.lengths[dim], ([], []))[1].append(number)
    slabs: list[_Slab] = []
    open_: dict[int, tuple[Box, Sequence[str]]] = {}
    for start, stop in itertools.pairwise(sorted(edges)):
        begun, ended = edges[start]
        for number in ended:
            del open_[number]
        open_.update((number, held[number]) for number in begun)
        if not open_:
            continue
        here = tuple(open_.values())
        if dim + 1 < len(here[0][0].offsets):
            slab = _Slab(start, stop, _swept(here, dim + 1), ())
        else:
            slab = _Slab(start, stop, (), tuple(sorted({holder for _, holders in here for holder in holders})))
        if slabs and slabs[-1].stop == start and slabs[-1][2:] == slab[2:]:
            slabs[-1] = slabs[-1]._replace(stop=stop)
        else:
            slabs.append(slab)
    return tuple(slabs)


_Met = tuple[tuple[Shape, Shape, Holders], ...]


def _met(slabs: Sequence[_Slab], offsets: Shape, lengths: Shape) -> _Met:
    """The cells of a box, as offsets, lengths and holders, from the dim on that the slabs are of."""
    begin, end = offsets[0], offsets[0] + lengths[0]
    inner = offsets[1:], lengths[1:]
    nobody: _Met = ((*inner, ()),)
    found: list[tuple[int, int, _Met]] = []

    def add(start: int, stop: int, cells: _Met) -> None:
        if found and found[-1][2] == cells:
            found[-1] = (found[-1][0], stop, cells)
        else:
            found.append((start, stop, cells))

    position = begin
    for index in range(bisect.bisect_right(slabs, begin, key=operator.attrgetter("stop")), len(slabs)):
        slab = slabs[index]
        if slab.start >= end:
            break
        if slab.start > position:
            add(position, slab.start, nobody)
        stop = min(slab.stop, end)
        add(max(position, slab.start), stop, _met(slab.below, *inner) if slab.below else (((), (), slab.holders),))
        position = stop
    if position < end:
        add(position, end, nobody)
    return tuple(
        ((start, *at), (stop - start, *size), holders) for start, stop, cells in found for at, size, holders in cells
    )
