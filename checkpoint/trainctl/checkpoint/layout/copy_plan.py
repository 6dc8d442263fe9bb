"""Who copies which range from whom, so that a destination layout is filled from a source layout.

Saving (workers to files), loading (files to workers), peer recovery and live resharding are all this one function.
Every wanted byte is read exactly once, and the bytes read are balanced over the replicas that have them.

Source: balancing is list scheduling, longest processing time first (Graham 1969), as ByteCheckpoint (NSDI '25) uses it
for saving, but counted in bytes of the range and with large ranges split over their holders.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from trainctl.checkpoint.layout.balance import Piece, balance
from trainctl.checkpoint.layout.combine import Combine, Term
from trainctl.checkpoint.layout.key import StateKey
from trainctl.checkpoint.layout.layout import Layout
from trainctl.checkpoint.layout.region import Flat
from trainctl.core.errors import PlanError


@dataclass(frozen=True, slots=True)
class Transfer:
    """One copy.

    Attributes:
        src_holder: who sends; equal to ``dst_holder`` only where a combine makes a local copy necessary.
        dst_holder: who receives.
        src_key: what it is.
        dst_key: what it becomes.
        region: which elements, row-major in the global tensor; the same in source and destination.
        combine: what happens on the way; None copies the bytes.
    """

    src_holder: str
    dst_holder: str
    src_key: StateKey
    dst_key: StateKey
    region: Flat
    combine: Combine | None = None

    @property
    def size_bytes(self) -> int:
        """Bytes read from the source."""
        return self.region.volume * self.src_key.item_bytes


@dataclass(frozen=True, slots=True, order=True)
class MissingRange:
    """Elements that somebody wants and no usable holder has: the next rung of the ladder must supply them."""

    dst_holder: str
    dst_key: StateKey
    region: Flat
    src_key: StateKey

    def __str__(self) -> str:
        return f"{self.dst_holder} has no source for {self.region} of {self.src_key}"


@dataclass(frozen=True, slots=True)
class CopyPlan:
    """Transfers in a fixed order (by destination, key, range), and what has no source."""

    transfers: tuple[Transfer, ...]
    missing: tuple[MissingRange, ...]


@dataclass(frozen=True, slots=True)
class _Segment:
    """A range of a source key over which the set of holders does not change."""

    start: int
    stop: int
    holders: tuple[str, ...]


def copy_plan(
    src: Layout,
    dst: Layout,
    *,
    failed: frozenset[str] = frozenset(),
    terms: Mapping[StateKey, Sequence[Term]] | None = None,
) -> CopyPlan:
    """Plans the copies that fill ``dst`` from ``src``.

    What a destination already holds under the same key and name is not copied. The result depends on the values of the
    arguments only, never on their order or on hashing.

    Args:
        src: what there is.
        dst: what is wanted.
        failed: holders of ``src`` that must not be read.
        terms: for destination keys that do not come from their equal: what they come from (a cast, a weighted sum).

    Raises:
        PlanError: a key has different shapes in source and destination.
    """
    pieces: list[Piece] = []
    missing: list[MissingRange] = []
    segments: dict[StateKey, tuple[_Segment, ...]] = {}
    for dst_holder in sorted(dst.holders):
        for dst_key in sorted(dst.holders[dst_holder]):
            for term in (terms or {}).get(dst_key, (Term(dst_key),)):
                if term.key not in segments:
                    segments[term.key] = _segments(src, term.key, failed)
                _check_shapes(src, dst, term.key, dst_key)
                found = _cut(dst.runs(dst_holder, dst_key), segments[term.key])
                _sort_out(dst_holder, dst_key, term, found, pieces, missing)
    loads = {holder: 0 for holder in sorted(src.holders) if holder not in failed}
    transfers = tuple(
        Transfer(p.sources[0], p.dst_holder, p.term.key, p.dst_key, p.region, p.term.combine)
        for p in balance(pieces, loads)
    )
    return CopyPlan(transfers, tuple(sorted(missing)))


def uncovered(wanted: Layout, sources: Layout, *, failed: frozenset[str] = frozenset()) -> tuple[MissingRange, ...]:
    """The ranges of ``wanted`` that no usable holder of ``sources`` has, by name."""
    return copy_plan(sources, wanted, failed=failed).missing


def _check_shapes(src: Layout, dst: Layout, src_key: StateKey, dst_key: StateKey) -> None:
    have, want = src.shapes.get(src_key), dst.shapes[dst_key]
    if have is not None and tuple(have) != tuple(want):
        raise PlanError(f"{dst_key}: expected shape {list(want)}, found {list(have)} at the source")


def _segments(src: Layout, key: StateKey, failed: frozenset[str]) -> tuple[_Segment, ...]:
    """Cuts what is held of ``key`` wherever the set of holders changes; gaps are left out."""
    events: list[tuple[int, int, str]] = []
    for holder, keys in src.holders.items():
        if holder not in failed and key in keys:
            for run in src.runs(holder, key):
                events += [(run.start, 1, holder), (run.stop, 0, holder)]
    segments: list[_Segment] = []
    active: set[str] = set()
    previous = 0
    for position, opens, holder in sorted(events):
        if active and position > previous:
            segments.append(_Segment(previous, position, tuple(sorted(active))))
        previous = position
        (active.add if opens else active.remove)(holder)
    return tuple(segments)


def _cut(wanted: Sequence[Flat], segments: Sequence[_Segment]) -> Iterator[_Segment]:
    """Walks the wanted ranges over the segments; where there is no segment, the holders are empty."""
    index = 0
    for run in wanted:
        position = run.start
        while position < run.stop:
            while index < len(segments) and segments[index].stop <= position:
                index += 1
            if index == len(segments) or segments[index].start >= run.stop:
                yield _Segment(position, run.stop, ())
                break
            here = segments[index]
            if here.start > position:
                yield _Segment(position, here.start, ())
            stop = min(here.stop, run.stop)
            yield _Segment(max(position, here.start), stop, here.holders)
            position = stop


def _sort_out(
    dst_holder: str,
    dst_key: StateKey,
    term: Term,
    found: Iterator[_Segment],
    pieces: list[Piece],
    missing: list[MissingRange],
) -> None:
    for segment in found:
        region = Flat(segment.start, segment.stop)
        if not segment.holders:
            missing.append(MissingRange(dst_holder, dst_key, region, term.key))
        elif dst_holder not in segment.holders:
            pieces.append(Piece(dst_holder, dst_key, region, term, segment.holders))
        elif term.key != dst_key or term.combine is not None:
            pieces.append(Piece(dst_holder, dst_key, region, term, (dst_holder,)))
