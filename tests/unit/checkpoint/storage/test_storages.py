"""Without it a crash or a full disk could leave a file that looks whole, or a storage be used that is no good."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from contracts.storage_contract import StorageContract
from trainctl.checkpoint.storage.errors import storage_errors
from trainctl.checkpoint.storage.local import LocalStorage
from trainctl.checkpoint.storage.opening import open_storage
from trainctl.checkpoint.storage.port import RangeRead, Storage
from trainctl.checkpoint.storage.probe import examine
from trainctl.checkpoint.storage.remote import FsspecStorage
from trainctl.core.errors import CheckpointError, StorageAwayError, StorageRefusedError


class TestLocalStorage(StorageContract):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> Storage:
        return open_storage(str(tmp_path / "not" / "yet"))

    def test_short_writes_are_continued(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        whole = os.pwritev

        def three_bytes(descriptor: int, buffers: Sequence[memoryview], offset: int) -> int:
            return whole(descriptor, [buffers[0][:3]], offset)

        monkeypatch.setattr(os, "pwritev", three_bytes)
        storage = LocalStorage(tmp_path)
        assert storage.write_file("f", [b"12345", b"", b"678"]) == 8
        assert storage.read("f") == b"12345678"

    def test_a_crash_while_creating_leaves_no_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(descriptor: int, buffers: Sequence[memoryview], offset: int) -> int:
            raise OSError(errno.ENOSPC, "no space left on device")

        storage = LocalStorage(tmp_path)
        with monkeypatch.context() as patched:
            patched.setattr(os, "pwritev", full)
            with pytest.raises(OSError, match="no space"):
                storage.create_file("manifest", b"x")
        assert storage.list("") == ()
        storage.create_file("manifest", b"y")
        assert storage.read("manifest") == b"y"

    def test_a_file_system_without_hard_links_is_said(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(source: Path, target: Path) -> None:
            raise PermissionError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "link", refuse)
        with pytest.raises(OSError, match="has no hard links") as caught:
            LocalStorage(tmp_path).create_file("manifest", b"x")
        assert caught.value.errno == errno.ENOSYS
        assert list(tmp_path.iterdir()) == []

    def test_a_probe_says_what_a_disk_lacks_and_leaves_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(descriptor: int, buffers: Sequence[memoryview], offset: int) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        good = examine(str(tmp_path / "not" / "yet"))
        assert (sorted(good), list(tmp_path.iterdir())) == (["freeBytes", "tookS"], [])
        monkeypatch.setattr(os, "pwritev", full)
        found = examine(f"file://{tmp_path}")
        assert (found["code"], found["hint"][:10]) == ("STORAGE_REFUSED", "free space")
        assert f"writing to {tmp_path} failed: [Errno 28] No space left on device" in found["error"]
        assert list(tmp_path.iterdir()) == []

    def test_what_a_full_disk_took_of_an_append_is_taken_back(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = os.pwritev

        def full(descriptor: int, buffers: Sequence[memoryview], offset: int) -> int:
            if offset > 4:
                raise OSError(errno.ENOSPC, "no space left on device")
            return whole(descriptor, [buffers[0][:3]], offset)

        storage = LocalStorage(tmp_path)
        storage.append("f", b"old\n", at=0)
        with monkeypatch.context() as patched:
            patched.setattr(os, "pwritev", full)
            with pytest.raises(OSError, match="no space"):
                storage.append("f", b"a longer line\n", at=4)
        assert storage.read("f") == b"old\n"
        storage.append("f", b"new\n", at=4)
        assert storage.read("f") == b"old\nnew\n"


class TestFsspecMemoryStorage(StorageContract):
    @pytest.fixture
    def storage(self) -> Storage:
        storage = open_storage(f"memory://{uuid.uuid4()}")
        assert isinstance(storage, FsspecStorage)
        return storage


class TestFsspecLocalStorage(StorageContract):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> Storage:
        return open_storage(f"local://{tmp_path}/deep")


def test_a_file_uri_takes_the_local_path(tmp_path: Path) -> None:
    storage = open_storage(f"file://{tmp_path}/with%20space")
    assert isinstance(storage, LocalStorage)
    assert storage.uri == f"{tmp_path}/with space"


def test_an_unknown_scheme_is_refused_with_a_hint() -> None:
    with pytest.raises(StorageRefusedError, match="nosuch://bucket") as caught:
        open_storage("nosuch://bucket/x")
    assert "s3fs" in caught.value.hint


def test_what_was_tried_is_said_once() -> None:
    with (
        pytest.raises(StorageAwayError, match=r"^listing s3://b failed: no answer\n"),
        storage_errors("listing s3://b"),
    ):
        raise OSError("listing s3://b: no answer")


def test_ranges_that_touch_are_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = open_storage(f"memory://{uuid.uuid4()}")
    assert isinstance(storage, FsspecStorage)
    content = bytes(range(100))
    storage.write_file("f", [content])
    asked: list[tuple[int, int]] = []
    plainly = type(storage._fs).cat_ranges

    def counting(fs: Any, paths: list[str], starts: list[int], ends: list[int], **options: Any) -> Any:
        asked.extend(zip(starts, ends, strict=True))
        return plainly(fs, paths, starts, ends, **options)

    monkeypatch.setattr(type(storage._fs), "cat_ranges", counting)
    reads = [RangeRead(offset, memoryview(bytearray(size))) for offset, size in ((30, 10), (0, 20), (20, 10), (50, 5))]
    storage.read_ranges("f", reads)
    assert asked == [(0, 40), (50, 55)]
    assert [bytes(read.into) for read in reads] == [content[r.offset : r.offset + len(r.into)] for r in reads]
    with pytest.raises(CheckpointError, match="expected 9 bytes at offset 95, found 5"):
        storage.read_ranges("f", [RangeRead(90, memoryview(bytearray(5))), RangeRead(95, memoryview(bytearray(9)))])
