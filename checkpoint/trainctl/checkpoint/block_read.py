"""What is read of a data file in one go."""

from __future__ import annotations

from typing import NamedTuple

from trainctl.checkpoint.layout.copy_plan import Transfer
from trainctl.checkpoint.layout.region import Flat


class BlockRead(NamedTuple):
    """Consecutive checksummed blocks of a file and the run in them that is wanted.

    Attributes:
        transfer: what they are read for.
        run: elements wanted of them.
        path: data file.
        begin: where the first block begins in the file.
        size: bytes of the blocks.
        skip: bytes before the first wanted element.
        block_bytes: of each block; the last may be shorter.
        checksums: of the blocks.
        takers: ranks that want of them, of those that load together.
        reader: which of them reads.
    """

    transfer: Transfer
    run: Flat
    path: str
    begin: int
    size: int
    skip: int
    block_bytes: int
    checksums: tuple[str, ...]
    takers: tuple[int, ...] = (0,)
    reader: int = 0

    @property
    def wanted_bytes(self) -> int:
        """Size of the run."""
        return self.run.volume * self.transfer.src_key.item_bytes
