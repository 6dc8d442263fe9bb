"""The port that every format implements, and what it reads."""

from __future__ import annotations

import gzip
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol, cast

import numpy as np
from numpy.typing import NDArray

Content = str | NDArray[np.generic]
"""Text, or token ids of shape (tokens,)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusFile:
    """One file of a corpus.

    Attributes:
        path: as the file system knows it.
        size_bytes: as stored (compressed, if it is); 0 when the storage does not tell.
        version: whatever the storage says about changes: modification time, ETag; empty when it says nothing.
    """

    path: str
    size_bytes: int
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A document, a piece of one, or the place of something that cannot be read.

    Attributes:
        start: position in the file where it begins: a byte of the unpacked content, a row, or a token.
        stop: where the next one begins.
        number: 0-based among the records of the file.
        content: None if it is corrupt.
        begins: a document begins with it; false for further pieces of a long one.
        where: its place for people, such as ``line 3, byte 120``.
        reason: why it is corrupt; empty if it is not.
    """

    start: int
    stop: int
    number: int
    content: Content | None
    begins: bool = True
    where: str = ""
    reason: str = ""


class Format(Protocol):
    """One way of keeping records in a file.

    Attributes:
        name: as ``spec.train.data.format`` spells it.
    """

    name: str

    def group_bytes(self, path: str) -> int:
        """About how much content of this file is worth reading at once: more where reaching a place costs much."""
        ...

    def held_out_from(self, filesystem: Any, file: CorpusFile, *, every: int) -> int | None:
        """Where the last ``every``-th of a file begins that is one long document; None where a file is many records."""
        ...

    def read(
        self, filesystem: Any, file: CorpusFile, *, start: int = 0, number: int = 0, cut: int | None = None
    ) -> Iterator[Record]:
        """Records from position ``start`` on, of which the first has this ``number``.

        In a file that is one long document a record ends at the first possible place at or behind ``cut``.

        Raises:
            OSError: the storage fails; damage of the content is a record with a reason instead.
            DataError: the whole file is not what the spec says.
        """
        ...


def is_packed(path: str) -> bool:
    """Whether the content is compressed by gzip."""
    return path.endswith(".gz")


@contextmanager
def open_unpacked(filesystem: Any, path: str) -> Generator[BinaryIO, None, None]:
    """The content of a file as a stream of bytes, unpacked; ``seek`` on a packed one reads what lies before."""
    with filesystem.open(path, "rb") as stream:
        if not is_packed(path):
            yield stream
            return
        with gzip.GzipFile(fileobj=stream) as unpacked:
            yield cast("BinaryIO", unpacked)
