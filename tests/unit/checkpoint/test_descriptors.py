"""What is written past the cache is what was given, whatever its sizes, and whatever the file system says to it."""

from __future__ import annotations

import errno
import fcntl
import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from trainctl.checkpoint.storage.descriptors import PIECE_BYTES, beside_training
from trainctl.checkpoint.storage.local import LocalStorage

SIZES = [(), (5,), (4096,), (4096, 7, 8192), (PIECE_BYTES,), (4096, PIECE_BYTES - 1, 3, 5000, PIECE_BYTES)]


def buffers(sizes: Sequence[int]) -> list[bytes]:
    return [random.Random(number).randbytes(size) for number, size in enumerate(sizes)]


class Disk:
    """Looks on, and takes writes past the cache as a disk does, on any file system.

    Attributes:
        sizes: of the writes that went past the cache.
        refuses: it takes none of them.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        self.refuses = False
        self._direct: set[int] = set()
        self._plainly = os.pwritev
        monkeypatch.setattr(os, "major", lambda _: 8)
        monkeypatch.setattr(fcntl, "fcntl", self.fcntl)
        monkeypatch.setattr(os, "pwritev", self.pwritev)

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
        monkeypatch.setattr(os, "major", lambda _: 0)
        storage.write_file("in memory", buffers([8192]))
    storage.write_file("after", buffers([8192]))
    assert disk.sizes == []


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
