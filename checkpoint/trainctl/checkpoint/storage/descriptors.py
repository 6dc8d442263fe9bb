"""Writing to an open file: all of it, through the page cache or past it.

Beside training, bytes go past the cache. To fill it takes a processor, several times as long as a plain copy, and the
training shares that processor (measured, 1.1 GB beside steps that keep both cores busy: 0.6 to 2.3 s of processor time
through the cache, 0.1 s past it, and it was over sooner). It also throws out what others read from there.

Several processes may write to one file so. Only whole pages that are all one writer's go past the cache; what is left
at the edges, where others' bytes may be in the same page, goes through it. For a page that it takes past the cache
the kernel writes back and drops what the cache has of that page, and of no other; pages with several writers only
ever change in the cache, which is one for all processes. So neither way undoes the other.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import math
import mmap
import os
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence

from trainctl.checkpoint.storage.port import RangeWrite

_BATCH_BYTES = 4 << 20
"""Written in one call, or one buffer if that is larger. Who gives the buffers has just read them for their checksums,
and so many bytes are still in the processor's caches: with 64 MiB a save took half as much processor time again."""
_BUFFERS_PER_CALL = 64  # well under IOV_MAX
PIECE_BYTES = 8 << 20
"""Gathered for one write past the cache."""
_PAGE_BYTES = max(4096, mmap.PAGESIZE)  # no disk takes less past the cache than its block, which is at most 4096
_DIRECT = getattr(os, "O_DIRECT", 0)


class _Here(threading.local):
    beside_training = False


_HERE = _Here()


@contextlib.contextmanager
def beside_training() -> Generator[None, None, None]:
    """What this thread writes in the block to disks of this machine goes past their cache."""
    before, _HERE.beside_training = _HERE.beside_training, True
    try:
        yield
    finally:
        _HERE.beside_training = before


def write_stream(descriptor: int, buffers: Iterable[memoryview | bytes]) -> int:
    """Writes all from the beginning of the file; returns the size. Holds a few buffers at a time."""
    if _HERE.beside_training and _past_cache(descriptor, True):
        return _write_past_cache(descriptor, _in_a_row(buffers))
    size = 0
    for batch in _batches(buffers):
        size += write_all(descriptor, batch, size)
    return size


def write_ranges(descriptor: int, ranges: Iterable[RangeWrite]) -> None:
    """Writes each at its place, while other processes write to other places of the file."""
    if _HERE.beside_training and _past_cache(descriptor, True):
        _write_past_cache(descriptor, ranges)
        return
    for part in ranges:
        write_all(descriptor, [part.data], part.offset)


def write_all(descriptor: int, buffers: Sequence[memoryview | bytes], offset: int) -> int:
    """Writes all buffers at ``offset``, however many bytes the kernel takes at a time; returns their size."""
    left = [memoryview(buffer) for buffer in buffers if len(buffer)]
    written = 0
    while left:
        count = os.pwritev(descriptor, left, offset + written)
        written += count
        while left and count >= left[0].nbytes:
            count -= left.pop(0).nbytes
        if count:
            left[0] = left[0][count:]
    return written


def _batches(buffers: Iterable[memoryview | bytes]) -> Iterator[list[memoryview | bytes]]:
    batch: list[memoryview | bytes] = []
    size = 0
    for buffer in buffers:
        batch.append(buffer)
        size += memoryview(buffer).nbytes
        if size >= _BATCH_BYTES or len(batch) == _BUFFERS_PER_CALL:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _in_a_row(buffers: Iterable[memoryview | bytes]) -> Iterator[RangeWrite]:
    position = 0
    for buffer in buffers:
        yield RangeWrite(position, buffer)
        position += memoryview(buffer).nbytes


def _write_past_cache(descriptor: int, ranges: Iterable[RangeWrite]) -> int:
    """Gathers what lies in a row, in memory that begins on a page, as the disk wants it; returns the size of it all."""
    gathered = _Gathered(descriptor)
    size = 0
    for part in ranges:
        data = memoryview(part.data).cast("B")
        gathered.add(part.offset, data)
        size += len(data)
    gathered.flush()
    return size


class _Gathered:
    """Bytes that lie in a row in a file and are not written yet, in memory that begins and ends with a page of it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        # A file system's own blocks may be larger than a page; then the cache keeps and drops such blocks.
        self._page_bytes = math.lcm(_PAGE_BYTES, os.fstat(descriptor).st_blksize or 1)
        self._piece = memoryview(mmap.mmap(-1, -(-PIECE_BYTES // self._page_bytes) * self._page_bytes))
        self._base: int = 0
        self._begin: int = 0
        self._end: int = 0
        self._direct = self._possible = True

    def add(self, offset: int, data: memoryview) -> None:
        """What follows on what is there is gathered with it; else that is written first."""
        if len(data) and offset != self._base + self._end:
            self.flush()
            self._begin = self._end = offset % self._page_bytes
            self._base = offset - self._begin
        while data:
            taken = min(len(data), len(self._piece) - self._end)
            self._piece[self._end : self._end + taken] = data[:taken]
            data, self._end = data[taken:], self._end + taken
            if self._end == len(self._piece):
                self.flush()

    def flush(self) -> None:
        """Whole pages go past the cache, the edges through it."""
        first = min(self._end, -(-self._begin // self._page_bytes) * self._page_bytes)
        last = max(first, self._end // self._page_bytes * self._page_bytes)
        self._put(first, last, direct=self._possible)
        self._put(self._begin, first, direct=False)
        self._put(last, self._end, direct=False)
        self._base += self._end
        self._begin = self._end = 0

    def _put(self, begin: int, end: int, *, direct: bool) -> None:
        if begin == end:
            return
        if direct != self._direct:
            self._direct = direct
            _past_cache(self._descriptor, direct)
        try:
            write_all(self._descriptor, [self._piece[begin:end]], self._base + begin)
        except OSError as error:
            if error.errno != errno.EINVAL or not direct:
                raise
            # The disk has larger blocks, or took a part of one: the cache takes whatever comes.
            self._possible = False
            self._put(begin, end, direct=False)


def _past_cache(descriptor: int, wanted: bool) -> bool:
    """Whether writes to the file go past the cache now. Only to a disk: other file systems have no use for it."""
    if not _DIRECT or os.major(os.fstat(descriptor).st_dev) == 0:
        return False
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | _DIRECT if wanted else flags & ~_DIRECT)
    except OSError:  # this one cannot
        return False
    return wanted
