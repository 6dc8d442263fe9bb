"""Writing to an open file: all of it, through the page cache or past it.

Beside training, bytes go past the cache. To fill it takes a processor, several times as long as a plain copy, and the
training shares that processor (measured, 1.1 GB beside steps that keep both cores busy: 0.6 to 2.3 s of processor time
through the cache, 0.1 s past it, and it was over sooner). It also throws out what others read from there.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import mmap
import os
import threading
from collections.abc import Iterable, Iterator, Sequence

_BUFFERS_PER_CALL = 16  # well under IOV_MAX, and few enough to bound what a streaming writer holds
PIECE_BYTES = 8 << 20
"""Gathered for one write past the cache."""
_PAGE_BYTES = 4096  # no disk takes less past the cache than its block, which is at most this
_DIRECT = getattr(os, "O_DIRECT", 0)


class _Here(threading.local):
    beside_training = False


_HERE = _Here()


@contextlib.contextmanager
def beside_training() -> Iterator[None]:
    """What this thread writes in the block to disks of this machine goes past their cache."""
    before, _HERE.beside_training = _HERE.beside_training, True
    try:
        yield
    finally:
        _HERE.beside_training = before


def write_stream(descriptor: int, buffers: Iterable[memoryview | bytes]) -> int:
    """Writes all from the beginning of the file; returns the size. Holds a few buffers at a time."""
    if _HERE.beside_training and _past_cache(descriptor, True):
        return _write_past_cache(descriptor, buffers)
    size = 0
    for batch in _batches(buffers):
        size += write_all(descriptor, batch, size)
    return size


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
    iterator = iter(buffers)
    while batch := list(itertools.islice(iterator, _BUFFERS_PER_CALL)):
        yield batch


def _write_past_cache(descriptor: int, buffers: Iterable[memoryview | bytes]) -> int:
    """Gathers pieces in memory that begins on a page, as the disk wants them; what is left of a page goes as usual."""
    piece = memoryview(mmap.mmap(-1, PIECE_BYTES))
    size = filled = 0
    for buffer in buffers:
        left = memoryview(buffer).cast("B")
        while left:
            taken = min(len(left), PIECE_BYTES - filled)
            piece[filled : filled + taken] = left[:taken]
            left, filled = left[taken:], filled + taken
            if filled == PIECE_BYTES:
                _put(descriptor, piece, size)
                size, filled = size + filled, 0
    pages = filled // _PAGE_BYTES * _PAGE_BYTES
    _put(descriptor, piece[:pages], size)
    _past_cache(descriptor, False)
    write_all(descriptor, [piece[pages:filled]], size + pages)
    return size + filled


def _put(descriptor: int, piece: memoryview, offset: int) -> None:
    try:
        write_all(descriptor, [piece], offset)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        # The disk has larger blocks, or took a part of one: the cache takes whatever comes.
        _past_cache(descriptor, False)
        write_all(descriptor, [piece], offset)


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
