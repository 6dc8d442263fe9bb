"""A text that only grows, on any storage: whole lines, in parts, the oldest of which may be dropped."""

from __future__ import annotations

from collections.abc import Sequence

from trainctl.checkpoint.storage.port import RangeRead, Storage

_TAIL_BYTES = 64 * 1024


class LineLog:
    """The parts ``<stem><suffix>``, ``<stem>.1<suffix>``, ``<stem>.2<suffix>``, ..., each of whole lines.

    Args:
        storage: where the parts lie.
        stem: path of the first part without its suffix.
        suffix: such as ``.jsonl``.
        part_bytes: size at which a new part is begun; 0: what the storage finds reasonable.
        max_bytes: of all parts together; the oldest are dropped beyond it; 0: all stay.
    """

    def __init__(self, storage: Storage, stem: str, suffix: str, *, part_bytes: int = 0, max_bytes: int = 0) -> None:
        self._storage = storage
        self._stem = stem
        self._suffix = suffix
        self._part_bytes = part_bytes or storage.append_limit_bytes
        self._max_bytes = max_bytes
        self._part = 0
        self._size = 0

    def open(self) -> bytes:
        """Stands at the end of what is there and returns its last lines; a line that a crash cut off is removed.

        Raises:
            OSError: the storage refuses.
        """
        parts = parts_of(self._storage, self._stem, self._suffix)
        if not parts:
            self._part = self._size = 0
            return b""
        self._part = parts[-1]
        path = self._path(self._part)
        self._size = self._storage.size(path) or 0
        tail = self._tail(path)
        if tail and not tail.endswith(b"\n"):
            whole = self._storage.read(path)
            kept = whole[: whole.rfind(b"\n") + 1]
            self._storage.write_file(path, [kept])
            self._size = len(kept)
            tail = kept[-_TAIL_BYTES:]
        if not tail and self._part > 0:
            return self._tail(self._path(self._part - 1))
        return tail

    def append(self, lines: bytes) -> None:
        """Adds whole lines.

        Raises:
            FileExistsError: somebody else wrote to it; ``open`` it again.
            OSError: the storage refuses; nothing was added.
        """
        if self._size and self._size + len(lines) > self._part_bytes:
            self._part, self._size = self._part + 1, 0
            self._drop_oldest()
        self._storage.append(self._path(self._part), lines, at=self._size)
        self._size += len(lines)

    def _drop_oldest(self) -> None:
        if self._max_bytes:
            keep = max(1, self._max_bytes // self._part_bytes)
            for old in parts_of(self._storage, self._stem, self._suffix):
                if old <= self._part - keep:
                    self._storage.delete(self._path(old))

    def _tail(self, path: str) -> bytes:
        size = self._storage.size(path) or 0
        tail = bytearray(min(size, _TAIL_BYTES))
        if tail:
            self._storage.read_ranges(path, [RangeRead(size - len(tail), memoryview(tail))])
        return bytes(tail)

    def _path(self, part: int) -> str:
        return part_path(self._stem, self._suffix, part)


def part_path(stem: str, suffix: str, part: int) -> str:
    """Path of one part; the first one has no number."""
    return f"{stem}.{part}{suffix}" if part else f"{stem}{suffix}"


def parts_of(storage: Storage, stem: str, suffix: str) -> Sequence[int]:
    """Numbers of the parts that are there, rising."""
    folder, _, name = stem.rpartition("/")
    return part_numbers(storage.list(folder), name, suffix)


def part_numbers(names: Sequence[str], stem: str, suffix: str) -> Sequence[int]:
    """The same, of a listing of the folder."""
    found: list[int] = []
    for name in names:
        if name == f"{stem}{suffix}":
            found.append(0)
        elif name.startswith(f"{stem}.") and name.endswith(suffix):
            number = name[len(stem) + 1 : -len(suffix)]
            if number.isdecimal():
                found.append(int(number))
    return sorted(found)
