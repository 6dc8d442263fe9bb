"""What is written past the cache is what was given, whatever its sizes, and whatever the file system says to it.

Without it the end of a file could be lost on a file system that takes less than it was given.
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainctl.checkpoint.storage import descriptors
from trainctl.checkpoint.storage.descriptors import PIECE_BYTES, beside_training
from trainctl.checkpoint.storage.local import LocalStorage
from trainctl.checkpoint.storage.port import RangeWrite

SIZES = [(), (5,), (4096,), (4096, 7, 8192), (PIECE_BYTES,), (4096, PIECE_BYTES - 1, 3, 5000, PIECE_BYTES)]


def buffers(sizes: Sequence[int]) -> list[bytes]:
    return [random.Random(number).randbytes(size) for number, size in enumerate(sizes)]


class Disk:
    """Looks on, and takes writes past the cache as a disk does, on any file system.

    Attributes:
        sizes: of the writes that went past the cache.
        places: where those went.
        refuses: it takes none of them.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        self.places: list[range] = []
        self.refuses = False
        self._direct: set[int] = set()
        self._plainly = os.pwritev
        self._opened = os.open
        monkeypatch.setattr(os, "major", lambda _: 8)
        monkeypatch.setattr(os, "open", self.open)
        monkeypatch.setattr(fcntl, "fcntl", self.fcntl)
        monkeypatch.setattr(os, "pwritev", self.pwritev)

    def open(self, path: os.PathLike[str], flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        """A file that is opened has no flags of the one which had its number before."""
        descriptor = self._opened(path, flags, mode, dir_fd=dir_fd)
        self._direct.discard(descriptor)
        return descriptor

    def fcntl(self, descriptor: int, command: int, flags: int = 0) -> int:
        if command == fcntl.F_SETFL:
            (self._direct.add if flags & os.O_DIRECT else self._direct.discard)(descriptor)
            return 0
        return os.O_DIRECT if descriptor in self._direct else 0

    def pwritev(self, descriptor: int, views: Sequence[memoryview], offset: int) -> int:
        if descriptor in self._direct:
            if self.refuses or offset % 4096 or any(view.nbytes % 4096 for view in views):
                raise OSError(errno.EINVAL, "Invalid argument")
            self.sizes += [view.nbytes for view in views]
            self.places.append(range(offset, offset + sum(view.nbytes for view in views)))
        return self._plainly(descriptor, views, offset)


@pytest.mark.parametrize("refuses", [False, True])
@pytest.mark.parametrize("sizes", SIZES)
def test_all_of_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sizes: Sequence[int], refuses: bool
) -> None:
    disk = Disk(monkeypatch)
    disk.refuses = refuses
    with beside_training():
        assert LocalStorage(tmp_path).write_file("f", iter(buffers(sizes))) == sum(sizes)
    assert (tmp_path / "f").read_bytes() == b"".join(buffers(sizes))
    assert sum(disk.sizes) == (0 if refuses else sum(sizes) // 4096 * 4096)


@pytest.mark.parametrize("sizes", SIZES)
def test_on_the_file_system_that_there_is(tmp_path: Path, sizes: Sequence[int]) -> None:
    with beside_training():
        assert LocalStorage(tmp_path).write_file("f", buffers(sizes)) == sum(sizes)
    assert (tmp_path / "f").read_bytes() == b"".join(buffers(sizes))


def test_a_piece_of_which_the_disk_took_a_part_is_written_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Disk(monkeypatch)
    taking = os.pwritev

    def short(descriptor: int, views: Sequence[memoryview], offset: int) -> int:
        if offset == 0 and views[0].nbytes == 12288:
            return os.pwrite(descriptor, views[0][:100], 0)
        return taking(descriptor, views, offset)

    monkeypatch.setattr(os, "pwritev", short)
    with beside_training():
        LocalStorage(tmp_path).write_file("f", buffers([12288]))
    assert (tmp_path / "f").read_bytes() == b"".join(buffers([12288]))


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, views: Sequence[memoryview], offset: int) -> int:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(os, "pwritev", full)
    with beside_training(), pytest.raises(OSError, match="no space"):
        LocalStorage(tmp_path).write_file("f", buffers([PIECE_BYTES + 1]))


def test_only_what_is_written_beside_training_goes_past_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    storage = LocalStorage(tmp_path)
    storage.write_file("before", buffers([8192]))
    with beside_training():
        storage.write_file("beside", buffers([4096]))
    storage.write_file("after", buffers([8192]))
    with beside_training():
        monkeypatch.setattr(os, "major", lambda _: 0)
        storage.write_file("in memory", buffers([8192]))
    assert disk.sizes == [4096]


def test_what_was_just_read_is_written_before_more_is_read(tmp_path: Path) -> None:
    """By then its checksum was taken, and the processor's caches still have it."""
    path, there = tmp_path / "file", list[int]()
    piece = bytes(4 << 20)

    def pieces() -> Iterator[bytes]:
        for _ in range(5):
            there.append(path.stat().st_size)
            yield piece

    LocalStorage(tmp_path).write_file("file", pieces())
    assert there == [number * len(piece) for number in range(5)]


def test_small_buffers_are_written_together(tmp_path: Path) -> None:
    path, there = tmp_path / "file", list[int]()

    def lines() -> Iterator[bytes]:
        for number in range(200):
            there.append(path.stat().st_size)
            yield b"%03d" % number

    LocalStorage(tmp_path).write_file("file", lines())
    assert len(set(there)) == 4, "64 at a time"
    assert path.read_bytes() == b"".join(b"%03d" % number for number in range(200))


def test_a_buffer_may_change_once_the_next_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Disk(monkeypatch)
    one = bytearray(PIECE_BYTES // 2)

    def given() -> Iterator[memoryview]:
        for number in range(5):
            one[:] = bytes([number]) * len(one)
            yield memoryview(one)

    with beside_training():
        LocalStorage(tmp_path).write_file("f", given())
    assert (tmp_path / "f").read_bytes() == b"".join(bytes([n]) * len(one) for n in range(5))


PAGE_BYTES = 4096
SMALL_PIECE_BYTES = 4 * PAGE_BYTES


@st.composite
def shared_files(draw: st.DrawFn) -> tuple[list[list[range]], list[bool]]:
    """Several writers' ranges, which cover a file, in the order in which they write them; and who writes directly."""
    writers = draw(st.integers(1, 4))
    lengths = st.one_of(
        st.integers(0, 70),
        st.integers(0, 3 * SMALL_PIECE_BYTES),
        st.sampled_from([PAGE_BYTES - 1, PAGE_BYTES, PAGE_BYTES + 1, SMALL_PIECE_BYTES, 2 * SMALL_PIECE_BYTES]),
    )
    parts: list[list[range]] = [[] for _ in range(writers)]
    position = 0
    for length, writer in draw(st.lists(st.tuples(lengths, st.integers(0, writers - 1)), max_size=25)):
        parts[writer].append(range(position, position + length))
        position += length
    orders = [draw(st.permutations(part)) if draw(st.booleans()) else part for part in parts]
    return orders, [draw(st.booleans()) for _ in parts]


def whole_pages(part: Sequence[range]) -> int:
    """Bytes of the pages that are one writer's from end to end, of those ranges that it writes in a row."""
    rows: list[range] = []
    for one in part:
        if rows and one and rows[-1].stop == one.start:
            rows[-1] = range(rows[-1].start, one.stop)
        elif one:
            rows.append(one)
    return sum(max(0, row.stop // PAGE_BYTES - -(-row.start // PAGE_BYTES)) * PAGE_BYTES for row in rows)


@pytest.mark.parametrize("disk_there", [False, True])
@settings(max_examples=60, deadline=None)
@given(shared=shared_files(), seed=st.integers(0, 2**32))
def test_writers_of_one_file_leave_each_others_bytes_alone(
    shared: tuple[list[list[range]], list[bool]], seed: int, disk_there: bool
) -> None:
    """All at once, each beside training or not: on the file system that there is, and on one that takes whole pages."""
    parts, beside = shared
    size = max((one.stop for part in parts for one in part), default=0)
    expected = random.Random(seed).randbytes(size)
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(descriptors, "PIECE_BYTES", SMALL_PIECE_BYTES)
        disk = Disk(patch) if disk_there else None
        storage = LocalStorage(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        ready = threading.Barrier(len(parts))
        failed: list[BaseException] = []

        def write(part: Sequence[range], directly: bool) -> None:
            try:
                ready.wait(20.0)
                with beside_training() if directly else nullcontext():
                    storage.write_ranges("f", (RangeWrite(one.start, expected[one.start : one.stop]) for one in part))
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=write, args=of) for of in zip(parts, beside, strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20.0)
        assert failed == []
        assert storage.read("f") == expected
        if disk is not None:
            directly = [whole_pages(part) for part, direct in zip(parts, beside, strict=True) if direct]
            assert sum(disk.sizes) == sum(directly)


def test_a_page_with_bytes_of_others_goes_through_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch)
    data = random.Random(1).randbytes(5 * PAGE_BYTES)
    with beside_training():
        LocalStorage(tmp_path).write_ranges("f", [RangeWrite(100, data), RangeWrite(100 + len(data), b"more")])
    assert disk.places == [range(PAGE_BYTES, 5 * PAGE_BYTES)]
    assert (tmp_path / "f").read_bytes() == bytes(100) + data + b"more"


def test_ranges_that_the_disk_refuses_are_written_through_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    disk.refuses = True
    ranges = [RangeWrite(3 * PAGE_BYTES * number, bytes([number]) * 2 * PAGE_BYTES) for number in range(1, 5)]
    with beside_training():
        LocalStorage(tmp_path).write_ranges("f", ranges)
    found = (tmp_path / "f").read_bytes()
    assert all(found[part.offset : part.offset + len(part.data)] == part.data for part in ranges)
