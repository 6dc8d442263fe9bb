"""Compares bytes with their checksum. Those that differ are read again: only what is wrong twice is damaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainctl.checkpoint.manifest.checksum import checksum, joined
from trainctl.checkpoint.manifest.rereads import Rereads
from trainctl.checkpoint.monitor import READ
from trainctl.checkpoint.stopwatch import timed
from trainctl.checkpoint.storage.port import RangeRead, Storage
from trainctl.core.errors import DamagedCheckpointError


@dataclass(frozen=True, slots=True)
class BlockCheck:
    """Checks what was read from the files of one attempt; threads may share it.

    Attributes:
        storage: opened at the attempt.
        rereads: told what was right only when it was read again.
    """

    storage: Storage
    rereads: Rereads

    def check(self, path: str, found: RangeRead, expected: Sequence[str], block_bytes: int, what: str) -> None:
        """Sees that bytes of a file are what was saved; on return they are in ``found.into``.

        Args:
            path: of the file.
            found: the bytes of consecutive blocks, and where they lie.
            expected: the checksum of each block.
            block_bytes: of each; the last may be shorter.
            what: they are.

        Raises:
            DamagedCheckpointError: they are not; names file, range and what they are, of the first block.
        """
        # At once: each call lets other threads run, and waits for them, which takes longer than a block.
        if checksum(found.into) == joined(expected, len(found.into), block_bytes):
            return
        for number, one in enumerate(expected):
            begin = number * block_bytes
            self._check_block(path, RangeRead(found.offset + begin, found.into[begin : begin + block_bytes]), one, what)

    def _check_block(self, path: str, found: RangeRead, expected: str, what: str) -> None:
        if checksum(found.into) == expected:
            return
        with timed(READ):
            self.storage.read_ranges(path, [found])
        where = f"{self.storage.uri}/{path}"
        which = f"bytes {found.offset}:{found.offset + len(found.into)} ({what})"
        if checksum(found.into) != expected:
            raise DamagedCheckpointError(
                f"{where} is corrupt: {which} do not have their checksum",
                hint="resume from an older checkpoint, or restore the file from a copy",
            )
        self.rereads.heal(f"{where}, {which},")
