"""The bytes that one set of replicas has to supply, in a row, cut into one stretch for each of them.

A stack is a want of a placement repeated for every key that lies alike: it takes its place in the row as a whole, and
positions in it are arithmetic. So the row may be millions of ranges long; only those that are asked for are made.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from trainctl.checkpoint.layout.balance import Sources, balance
from trainctl.checkpoint.layout.pairing import Want
from trainctl.checkpoint.layout.region import Box, Flat, Region, part_of, volume

_SMALLEST_SPLIT_BYTES = 1 << 16
"""Below this, a split costs more (one more request) than it balances."""


class Stack(NamedTuple):
    """One want for each of ``keys``, one after the other.

    Attributes:
        want: the region, equal for all keys; its elements are in row-major order.
        keys: numbers of the keys in the plan.
        item_bytes: of one element.
        begin: where in the pool's row it begins, in bytes.
        range_bytes: of the region of one key.
    """

    want: Want
    keys: Sequence[int]
    item_bytes: int
    begin: int
    range_bytes: int

    @property
    def unit_bytes(self) -> int:
        """What is not cut: an element; of a box, a row that is shorter than a scrap, so that a part is a box, too."""
        region = self.want.region
        if isinstance(region, Box):
            for dim in range(1, len(region.lengths)):
                row_bytes = math.prod(region.lengths[dim:]) * self.item_bytes
                if row_bytes < _SMALLEST_SPLIT_BYTES:
                    return row_bytes
        return self.item_bytes

    @property
    def end(self) -> int:
        """Where in the pool's row it ends."""
        return self.begin + self.range_bytes * len(self.keys)


class Piece(NamedTuple):
    """A region of one key and the source it comes from."""

    dst_holder: str
    key: int
    region: Region
    source: str


class Pool:
    """Stacks with the same sources; ``deal`` before looking at pieces.

    Attributes:
        size_bytes: of all stacks.
    """

    def __init__(self, sources: Sources) -> None:
        self.size_bytes = 0
        self._sources = sources
        self._stacks: list[Stack] = []
        self._cuts: list[int] = []

    def add(self, want: Want, keys: Sequence[int], item_bytes: int) -> Stack:
        """Puts the want of these keys at the end of the row."""
        stack = Stack(want, keys, item_bytes, self.size_bytes, volume(want.region) * item_bytes)
        self._stacks.append(stack)
        self.size_bytes = stack.end
        return stack

    def deal(self, shares: Sequence[int]) -> None:
        """Cuts the row into one stretch for each source, about as long as its share."""
        position = 0
        self._cuts = [0]
        for share in shares:
            position += share
            self._cuts.append(self._rounded(position))

    def _rounded(self, position: int) -> int:
        """The place near by where a cut leaves whole elements and no scraps."""
        at = bisect.bisect_right(self._stacks, position, key=lambda stack: stack.begin) - 1
        stack = self._stacks[at]
        size = stack.range_bytes
        offset = (position - stack.begin) % size
        start, nearest = position - offset, min(offset, size - offset)
        if 2 * nearest < _SMALLEST_SPLIT_BYTES:
            return start if 2 * offset < size else start + size
        return position - offset % stack.unit_bytes

    def pieces(self, stack: Stack) -> Iterator[Piece]:
        """All of a stack of this pool, whoever sends it."""
        source = max(bisect.bisect_right(self._cuts, stack.begin) - 1, 0)
        while source < len(self._sources) and self._cuts[source] < stack.end:
            yield from self._stretch(stack, source)
            source += 1

    def pieces_of(self, source: str) -> Iterator[Piece]:
        """All that one source sends; nothing if it is not of this pool."""
        at = bisect.bisect_left(self._sources, source)
        if at == len(self._sources) or self._sources[at] != source:
            return
        begin, end = self._cuts[at], self._cuts[at + 1]
        first = max(bisect.bisect_right(self._stacks, begin, key=lambda stack: stack.begin) - 1, 0)
        for stack in self._stacks[first:]:
            if stack.begin >= end:
                break
            yield from self._stretch(stack, at)

    def _stretch(self, stack: Stack, source: int) -> Iterator[Piece]:
        """The part of a stack that a source sends; none if its stretch is empty, which it may be inside a stack."""
        low = max(self._cuts[source], stack.begin) - stack.begin
        high = min(self._cuts[source + 1], stack.end) - stack.begin
        if low >= high:
            return
        size, item, want = stack.range_bytes, stack.item_bytes, stack.want
        for index in range(low // size, -(-high // size)):
            part = Flat(max(low - index * size, 0) // item, min(high - index * size, size) // item)
            for region in part_of(want.region, part):
                yield Piece(want.dst_holder, stack.keys[index], region, self._sources[source])


def deal_all(pools: Mapping[Sources, Pool], alone: Mapping[Sources, int]) -> None:
    """Deals all pools so that their sources read about the same; ``alone``: bytes of a single source."""
    shares = balance({**alone, **{sources: pool.size_bytes for sources, pool in pools.items()}})
    for sources, pool in pools.items():
        pool.deal(shares[sources])
