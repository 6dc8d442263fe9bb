"""What one placement wants from another: computed once for all keys that lie in the same way on both sides."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from trainctl.checkpoint.layout.placement import Placement
from trainctl.checkpoint.layout.region import Flat


@dataclass(frozen=True, slots=True)
class Segment:
    """A range of a source placement over which the set of holders (ascending) does not change."""

    start: int
    stop: int
    holders: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Want:
    """A range that a destination lacks, and whom it may come from: nobody, where it is missing."""

    dst_holder: str
    start: int
    stop: int
    sources: tuple[str, ...]


def segments_of(placement: Placement, failed: frozenset[str]) -> tuple[Segment, ...]:
    """Cuts what usable holders have wherever the set of holders changes; gaps are left out."""
    events: list[tuple[int, int, str]] = []
    for holder, runs in placement.runs.items():
        if holder not in failed:
            for run in runs:
                events += [(run.start, 1, holder), (run.stop, 0, holder)]
    segments: list[Segment] = []
    active: set[str] = set()
    previous = 0
    for position, opens, holder in sorted(events):
        if active and position > previous:
            segments.append(Segment(previous, position, tuple(sorted(active))))
        previous = position
        (active.add if opens else active.remove)(holder)
    return tuple(segments)


def wants(dst: Placement, segments: Sequence[Segment], *, in_place: bool) -> tuple[Want, ...]:
    """What each destination, in order of names, has to get from elsewhere.

    Args:
        dst: what is wanted.
        segments: of the source.
        in_place: what a destination already holds is not wanted; otherwise it copies that from itself.
    """
    found: list[Want] = []
    stops = [segment.stop for segment in segments]
    members = {segment.holders: frozenset(segment.holders) for segment in segments}
    for holder, runs in sorted(dst.runs.items()):
        for run in runs:
            for start, stop, holders in _cut(run, segments, stops):
                if not holders or holder not in members[holders]:
                    found.append(Want(holder, start, stop, holders))
                elif not in_place:
                    found.append(Want(holder, start, stop, (holder,)))
    return tuple(found)


def _cut(run: Flat, segments: Sequence[Segment], stops: Sequence[int]) -> Iterator[tuple[int, int, tuple[str, ...]]]:
    """Walks a range over the segments; where there is no segment, the holders are empty."""
    position = run.start
    for index in range(bisect.bisect_right(stops, position), len(segments)):
        here = segments[index]
        if here.start >= run.stop:
            break
        if here.start > position:
            yield position, here.start, ()
        stop = min(here.stop, run.stop)
        yield max(position, here.start), stop, here.holders
        position = stop
    if position < run.stop:
        yield position, run.stop, ()
