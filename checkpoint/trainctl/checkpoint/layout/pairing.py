"""What one placement wants from another: found once for all keys that lie in the same way on both sides.

Both sides are cut into segments. What one holder gets or sends is then found by bisection, without looking at what the
others do: between layouts that have nothing in common, such as flat ranges and rows, all of it would be millions of
ranges.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import NamedTuple

from trainctl.checkpoint.layout.placement import Placement
from trainctl.checkpoint.layout.region import Flat, whole


class Segment(NamedTuple):
    """A range of a placement over which the set of holders (ascending) does not change."""

    start: int
    stop: int
    holders: tuple[str, ...]


class Want(NamedTuple):
    """A range that a destination lacks, and whom it may come from: nobody, where it is missing."""

    dst_holder: str
    start: int
    stop: int
    sources: tuple[str, ...]


class Coverage:
    """A placement cut wherever the set of its usable holders changes; made when looked at.

    Attributes:
        placement: this one.
        failed: holders that do not count.
    """

    def __init__(self, placement: Placement, failed: frozenset[str]) -> None:
        self.placement = placement
        self.failed = failed

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """Ascending; gaps are left out."""
        return _segments(self.placement, self.failed)

    @cached_property
    def members(self) -> Mapping[tuple[str, ...], frozenset[str]]:
        """Each set of holders that occurs, for looking up."""
        return {segment.holders: frozenset(segment.holders) for segment in self.segments}

    @cached_property
    def _stops(self) -> list[int]:
        return [segment.stop for segment in self.segments]

    @cached_property
    def of(self) -> Mapping[str, list[Segment]]:
        """The segments of each holder."""
        found: dict[str, list[Segment]] = {}
        for segment in self.segments:
            for holder in segment.holders:
                found.setdefault(holder, []).append(segment)
        return found

    @cached_property
    def _solid(self) -> list[Flat]:
        """What somebody has, touching ranges as one."""
        solid: list[Flat] = []
        for start, stop, _ in self.segments:
            if solid and solid[-1].stop == start:
                solid[-1] = Flat(solid[-1].start, stop)
            else:
                solid.append(Flat(start, stop))
        return solid

    def covers(self, run: Flat) -> bool:
        """Whether somebody has every element of it."""
        at = bisect.bisect_right(self._solid, run.start, key=lambda solid: solid.start) - 1
        return run.volume == 0 or (at >= 0 and run.stop <= self._solid[at].stop)

    def cut(self, start: int, stop: int) -> Iterator[Segment]:
        """Walks a range over the segments; where there is no segment, the holders are empty."""
        position = start
        for index in range(bisect.bisect_right(self._stops, position), len(self.segments)):
            here = self.segments[index]
            if here.start >= stop:
                break
            if here.start > position:
                yield Segment(position, here.start, ())
            end = min(here.stop, stop)
            yield Segment(max(position, here.start), end, here.holders)
            position = end
        if position < stop:
            yield Segment(position, stop, ())


class Pairing:
    """What each destination has to get from elsewhere.

    Args:
        src: what there is.
        dst: what is wanted.
        in_place: what a destination already holds is not wanted; otherwise it copies that from itself.

    Attributes:
        destinations: who wants something, in order of names.
    """

    def __init__(self, src: Coverage, dst: Coverage, *, in_place: bool) -> None:
        self.destinations = sorted(dst.placement.regions)
        self._src = src
        self._dst = dst
        self._in_place = in_place

    def into(self, holder: str) -> Iterator[Want]:
        """What one destination wants, ascending."""
        for run in self._dst.placement.runs_of(holder):
            for start, stop, sources in self._src.cut(run.start, run.stop):
                if not sources or holder not in self._src.members[sources]:
                    yield Want(holder, start, stop, sources)
                elif not self._in_place:
                    yield Want(holder, start, stop, (holder,))

    def out_of(self, source: str) -> Iterator[Want]:
        """What any destination wants and may get from ``source``; a range may come in parts that touch."""
        for segment in self._src.of.get(source, ()):
            own = self._src.members[segment.holders]
            for start, stop, holders in self._dst.cut(segment.start, segment.stop):
                for holder in holders:
                    if holder not in own:
                        yield Want(holder, start, stop, segment.holders)
                    elif not self._in_place and holder == source:
                        yield Want(holder, start, stop, (source,))

    def missing(self) -> Iterator[Want]:
        """What nobody has."""
        if self._src.covers(whole(self._dst.placement.shape)):
            return
        for holder in self.destinations:
            if not all(self._src.covers(run) for run in self._dst.placement.runs_of(holder)):
                yield from (want for want in self.into(holder) if not want.sources)

    def all(self) -> Iterator[Want]:
        """What all want, in order of names."""
        for holder in self.destinations:
            yield from self.into(holder)


def _segments(placement: Placement, failed: frozenset[str]) -> tuple[Segment, ...]:
    events: list[tuple[int, int, str]] = []
    for holder in placement.regions:
        if holder not in failed:
            for start, stop in placement.runs_of(holder):
                events += [(start, 1, holder), (stop, 0, holder)]
    segments: list[Segment] = []
    active: set[str] = set()
    previous = 0
    for position, opens, holder in sorted(events):
        if active and position > previous:
            segments.append(Segment(previous, position, tuple(sorted(active))))
        previous = position
        (active.add if opens else active.remove)(holder)
    return tuple(segments)
