"""The storage port: the few operations that checkpoints and records need of a file system or an object store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class RangeRead:
    """Fill ``into`` with the bytes of a file that start at ``offset``."""

    offset: int
    into: memoryview


@dataclass(frozen=True, slots=True)
class RangeWrite:
    """Bytes of a file that start at ``offset``."""

    offset: int
    data: memoryview | bytes


class Storage(Protocol):
    """A folder. Paths are relative to it and use ``/``. Contract tests: tests/contracts/storage_contract.py.

    What is not there raises FileNotFoundError; what the medium refuses (full, read-only) raises another OSError.
    """

    @property
    def uri(self) -> str:
        """The folder itself, without a trailing slash."""
        ...

    @property
    def requests_at_once(self) -> int:
        """How many threads should read at the same time; more do not make it faster."""
        ...

    @property
    def creates_atomically(self) -> bool:
        """Whether ``create_file`` is one act, as far as is known: a store may turn out to lack what that takes."""
        ...

    @property
    def gives_up(self) -> bool:
        """Whether every call ends by itself, whatever the medium does: who waits for one then is not stuck."""
        ...

    @property
    def append_limit_bytes(self) -> int:
        """Size from which on a file should not grow any more, since ``append`` may have to write it anew."""
        ...

    def write_file(self, path: str, buffers: Iterable[memoryview | bytes]) -> int:
        """Writes a file from buffers, in order; makes missing folders; durable on return.

        A crash may leave a partial file, so what a manifest does not list is never read. Returns its size in bytes.
        """
        ...

    @property
    def ranged_writes(self) -> bool:
        """Whether ``write_ranges`` is possible; object stores take whole objects only."""
        ...

    def write_ranges(self, path: str, ranges: Iterable[RangeWrite]) -> None:
        """Writes parts of a file that others may write to at the same time; makes it, and missing folders.

        Durable on return; what nobody writes is zeros.

        Raises:
            CheckpointError: this storage cannot do it (see ``ranged_writes``).
        """
        ...

    def create_file(self, path: str, data: bytes) -> None:
        """Creates a whole file in one atomic, durable act.

        Raises:
            FileExistsError: there is one already, maybe of another process; it stays as it is.
        """
        ...

    def append(self, path: str, data: bytes, *, at: int) -> None:
        """Lets a file of exactly ``at`` bytes (0: or none) grow; makes missing folders.

        All of ``data`` is added or nothing. It survives the end of this process; after a power cut some may be missing.

        Raises:
            FileExistsError: the file has another size, so somebody else wrote to it.
        """
        ...

    def read(self, path: str, *, whole: Callable[[bytes], bool] | None = None) -> bytes:
        """The whole content of a (small) file.

        ``whole`` tells whether bytes are all of it, as a hash can: it saves asking a storage that may cut off its
        answers for the size, too. What it does not take is returned all the same, if it is as long as the file.
        """
        ...

    def read_ranges(self, path: str, ranges: Sequence[RangeRead]) -> None:
        """Fills each buffer with the file's bytes from its offset.

        Raises:
            CheckpointError: the file ends before a range does.
        """
        ...

    def size(self, path: str) -> int | None:
        """Size of a file in bytes; None if there is no such file."""
        ...

    def list(self, path: str) -> tuple[str, ...]:
        """Names of the entries of a folder, sorted; none if there is no such folder."""
        ...

    def sizes(self, path: str) -> Mapping[str, int]:
        """Sizes of the files of a folder by name, all in one look; of what was just written some may be missing."""
        ...

    def delete(self, path: str) -> None:
        """Removes a file, or a folder with all that is in it; nothing happens if it is not there."""
        ...

    def delete_if_empty(self, path: str) -> None:
        """Removes a folder only if nothing is in it, even if something is put there meanwhile."""
        ...


def other_size(path: str, *, expected: int, found: int) -> FileExistsError:
    """The error of an ``append`` at the wrong place."""
    return FileExistsError(f"{path}: expected {expected} bytes, found {found}: somebody else writes to it")


def short_read(path: str, read: RangeRead, found: int) -> str:
    """The words for a file that ends too early."""
    return f"{path} is truncated: expected {len(read.into)} bytes at offset {read.offset}, found {found}"
