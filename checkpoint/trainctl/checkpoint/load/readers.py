"""Who reads what, where several ranks load at once: each block is read by one of those who want it, and passed on.

Pure. Every rank finds the same, looking only at what it wants itself and who else wants of that; nothing is asked.

Source: elimination of redundant loading in ByteCheckpoint (NSDI '25), section 4.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Sequence
from typing import NamedTuple

from trainctl.checkpoint.layout.key import StateKey
from trainctl.checkpoint.layout.layout import Layout, rank_holder
from trainctl.checkpoint.layout.placement import Placement
from trainctl.checkpoint.layout.region import Region, Shape, common, hull, offset_in, volume
from trainctl.checkpoint.load.block_read import BlockRead

TURN_BYTES = 4 << 20
"""So much of a file is read by one rank before the next of its takers has its turn."""


class Stretch(NamedTuple):
    """Blocks ``first <= i < stop`` of a chunk that the same ranks take."""

    first: int
    stop: int
    takers: tuple[int, ...]


class Piece(NamedTuple):
    """Elements that a rank takes of some blocks.

    Attributes:
        number: which of the rank's regions of the tensor they are of.
        region: which elements.
        inside: the region of the blocks that they are of.
        begin: elements of the blocks before that region.
    """

    number: int
    region: Region
    inside: Region
    begin: int


class Readers:
    """What the ranks want that load together.

    Args:
        wanted: by all of them, under the keys of this rank's state.
        rank: which one this is.
        size: how many there are.
    """

    def __init__(self, wanted: Layout, rank: int, size: int) -> None:
        self.rank = rank
        self.size = size
        self._wanted = wanted
        # By the identity of placements, which layouts keep once: most tensors are cut like many others.
        self._known: dict[tuple[int, Region, int], tuple[Stretch, ...]] = {}
        self._taken: dict[tuple[int, tuple[Region, ...], int], tuple[Piece, ...]] = {}

    def stretches(self, key: StateKey, chunk: Region, block_items: int) -> tuple[Stretch, ...]:
        """Who takes which blocks of a chunk.

        A rank takes all blocks between the first and the last with something that it wants: every row of a chunk for
        those who want some of its columns.

        Args:
            key: the wanted tensor that comes from it.
            chunk: its elements.
            block_items: elements of a block; the last may have fewer.
        """
        placement = self._wanted.placements[key]
        label = (id(placement), chunk, block_items)
        if label not in self._known:
            self._known[label] = tuple(_stretches(placement, chunk, block_items, self.size))
        return self._known[label]

    def pieces(self, read: BlockRead, rank: int) -> tuple[Piece, ...]:
        """What a rank takes of some blocks, in the order in which it is sent."""
        placement = self._wanted.placements[read.transfer.dst_key]
        label = (id(placement), read.regions, rank)
        if label not in self._taken:
            regions = placement.regions.get(rank_holder(rank), ())
            begins = itertools.accumulate(map(volume, read.regions), initial=0)
            blocks = list(zip(read.regions, begins, strict=False))
            self._taken[label] = tuple(
                Piece(number, piece, inside, begin)
                for number, region in enumerate(regions)
                for inside, begin in blocks
                for piece in common(placement.shape, inside, region)
            )
        return self._taken[label]

    def bytes_to(self, read: BlockRead, rank: int) -> int:
        """How much of some blocks a rank takes."""
        pieces = self.pieces(read, rank)
        return sum(volume(piece.region) for piece in pieces) * read.transfer.src_key.item_bytes

    def wanted_bytes(self, read: BlockRead) -> int:
        """How much this one takes."""
        return self.bytes_to(read, self.rank)

    def shape(self, key: StateKey) -> Shape:
        """Of a whole tensor."""
        return self._wanted.shapes[key]


def reader_of(takers: Sequence[int], path: str, begin: int) -> int:
    """Which of the takers reads the bytes of a file that begin there: they take turns."""
    return takers[(zlib.crc32(path.encode()) + begin // TURN_BYTES) % len(takers)]


def _stretches(placement: Placement, chunk: Region, block_items: int, size: int) -> list[Stretch]:
    spans: list[tuple[int, int, int]] = []
    for rank in range(size):
        for region in placement.regions.get(rank_holder(rank), ()):
            shared = common(placement.shape, chunk, region)
            if shared:
                first = offset_in(placement.shape, chunk, hull(placement.shape, shared[0]).start)
                last = offset_in(placement.shape, chunk, hull(placement.shape, shared[-1]).stop - 1)
                spans.append((rank, first // block_items, last // block_items + 1))
    ends = sorted({end for _, first, stop in spans for end in (first, stop)})
    stretches: list[Stretch] = []
    for first, stop in itertools.pairwise(ends):
        takers = tuple(sorted({rank for rank, begin, end in spans if begin <= first and stop <= end}))
        if takers:
            stretches.append(Stretch(first, stop, takers))
    return stretches
