"""A tensor cut into ranges, wherever the set of those who hold something of it changes, where all hold flat ranges."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import NamedTuple

from trainctl.checkpoint.layout.grid import Cell, Holders
from trainctl.checkpoint.layout.region import Flat, Region, Shape, common, hull, volume


class _Segment(NamedTuple):
    start: int
    stop: int
    holders: Holders


class Line:
    """The ranges of a tensor.

    Args:
        shape: of the tensor.
        held: ranges and who holds them; those of one holder do not overlap.
    """

    def __init__(self, shape: Shape, held: Iterable[tuple[Flat, str]]) -> None:
        self._shape = shape
        self._segments = _segments(held)

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """All that somebody holds, ascending."""
        return tuple(Cell(Flat(start, stop), holders) for start, stop, holders in self._segments)

    @cached_property
    def _stops(self) -> list[int]:
        return [segment.stop for segment in self._segments]

    def cut(self, region: Region) -> Iterator[Cell]:
        """A region in the ranges that it meets; where nobody holds anything, the holders are empty."""
        if isinstance(region, Flat):
            for start, stop, holders in self._walk(region):
                yield Cell(Flat(start, stop), holders)
            return
        met = tuple(self._walk(hull(self._shape, region)))
        for start, stop, holders in met:
            parts = common(self._shape, Flat(start, stop), region) if len(met) > 1 else (region,)
            for part in parts:
                yield Cell(part, holders)

    def sizes(self, region: Region) -> Iterator[tuple[int, Holders]]:
        """How many elements ``cut`` gives of which holders."""
        if isinstance(region, Flat):
            return ((stop - start, holders) for start, stop, holders in self._walk(region))
        return ((volume(part), holders) for part, holders in self.cut(region))

    def _walk(self, run: Flat) -> Iterator[tuple[int, int, Holders]]:
        position, stop = run
        for index in range(bisect.bisect_right(self._stops, position), len(self._segments)):
            begin, end, holders = self._segments[index]
            if begin >= stop:
                break
            if begin > position:
                yield position, begin, ()
                position = begin
            end = min(end, stop)
            yield position, end, holders
            position = end
        if position < stop:
            yield position, stop, ()


def _segments(held: Iterable[tuple[Flat, str]]) -> tuple[_Segment, ...]:
    events: list[tuple[int, int, str]] = []
    for (start, stop), holder in held:
        events += [(start, 1, holder), (stop, 0, holder)]
    segments: list[_Segment] = []
    active: set[str] = set()
    previous = 0
    for position, opens, holder in sorted(events):
        if active and position > previous:
            segments.append(_Segment(previous, position, tuple(sorted(active))))
        previous = position
        (active.add if opens else active.remove)(holder)
    return tuple(segments)
