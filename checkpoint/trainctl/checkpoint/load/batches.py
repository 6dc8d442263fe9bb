"""What is read at once: parts of a file that come one after the other. Bounds the memory of those who read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

from trainctl.checkpoint.manifest.checksum import PIECE_BYTES


class Located(Protocol):
    """Bytes of a file."""

    @property
    def path(self) -> str:
        """Of the file."""
        ...

    @property
    def begin(self) -> int:
        """Where they begin."""
        ...

    @property
    def size(self) -> int:
        """How many they are."""
        ...


L = TypeVar("L", bound=Located)


def batches(reads: Iterable[L]) -> Iterator[list[L]]:
    """Cuts reads, which come by file and position, where a batch has ``PIECE_BYTES``: none has twice as many.

    The same bytes may come several times in a row; they count once, and come in one batch.
    """
    batch: list[L] = []
    size = 0
    for read in reads:
        again = bool(batch) and (batch[-1].path, batch[-1].begin) == (read.path, read.begin)
        if batch and not again and (batch[-1].path != read.path or size >= PIECE_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(read)
        size += 0 if again else read.size
    if batch:
        yield batch
