"""What is read of a data file in one go."""

from __future__ import annotations

from typing import NamedTuple

from trainctl.checkpoint.layout.copy_plan import Transfer
from trainctl.checkpoint.layout.region import Region, volume


class BlockRead(NamedTuple):
    """Consecutive checksummed blocks of a file, and what they are.

    Attributes:
        transfer: what they are read for.
        regions: their elements, one region after the other: of a chunk that is a box they are a few.
        path: data file.
        begin: where the first block begins in the file.
        size: bytes of the blocks.
        block_bytes: of each block; the last may be shorter.
        checksums: of the blocks.
        takers: ranks that want of them, of those that load together.
        reader: which of them reads.
    """

    transfer: Transfer
    regions: tuple[Region, ...]
    path: str
    begin: int
    size: int
    block_bytes: int
    checksums: tuple[str, ...]
    takers: tuple[int, ...] = (0,)
    reader: int = 0

    @property
    def elements(self) -> int:
        """How many there are in the blocks."""
        return sum(map(volume, self.regions))
