"""What every implementation of the ``Storage`` port has to do; a test class inherits this and gives the fixture."""

from __future__ import annotations

import pytest

from trainctl.checkpoint.storage.port import RangeRead, RangeWrite, Storage
from trainctl.core.errors import CheckpointError


class StorageContract:
    @pytest.fixture
    def storage(self) -> Storage:
        raise NotImplementedError("the inheriting class provides an empty storage")

    def test_a_file_reads_back_as_its_buffers_in_order(self, storage: Storage) -> None:
        buffers = [bytes([i % 256]) * (i % 7) for i in range(300)]
        size = storage.write_file("a/b/file", [buffers[0], *(memoryview(buffer) for buffer in buffers[1:])])
        assert size == sum(map(len, buffers)) == storage.size("a/b/file")
        assert storage.read("a/b/file") == b"".join(buffers)

    def test_an_empty_file_exists(self, storage: Storage) -> None:
        assert storage.write_file("empty", []) == 0
        assert storage.size("empty") == 0
        assert storage.read("empty") == b""
        assert storage.read("empty", whole=lambda data: not data) == b""

    def test_what_is_not_as_expected_is_read_all_the_same(self, storage: Storage) -> None:
        storage.write_file("f", [b"other"])
        assert storage.read("f", whole=lambda data: data == b"other") == b"other"
        assert storage.read("f", whole=lambda data: data == b"expected") == b"other", "whoever asked can tell"

    def test_writing_again_replaces(self, storage: Storage) -> None:
        storage.write_file("f", [b"a long first version"])
        storage.write_file("f", [b"short"])
        assert storage.read("f") == b"short"

    def test_ranges_go_where_they_are_asked_to(self, storage: Storage) -> None:
        storage.write_file("f", [bytes(range(100))])
        target = bytearray(12)
        view = memoryview(target)
        storage.read_ranges("f", [RangeRead(90, view[0:10]), RangeRead(5, view[10:12])])
        assert bytes(target) == bytes(range(90, 100)) + bytes([5, 6])

    def test_a_range_past_the_end_names_the_file(self, storage: Storage) -> None:
        storage.write_file("f", [b"0123456789"])
        with pytest.raises(CheckpointError, match="f is truncated: expected 4 bytes at offset 8, found 2"):
            storage.read_ranges("f", [RangeRead(8, memoryview(bytearray(4)))])

    def test_what_is_missing_is_said_so(self, storage: Storage) -> None:
        assert storage.size("nowhere/file") is None
        assert storage.list("nowhere") == ()
        with pytest.raises(FileNotFoundError):
            storage.read("nowhere/file")
        with pytest.raises(FileNotFoundError):
            storage.read_ranges("nowhere/file", [RangeRead(0, memoryview(bytearray(1)))])

    def test_only_one_creates_a_file(self, storage: Storage) -> None:
        storage.create_file("x/commit", b"first")
        with pytest.raises(FileExistsError):
            storage.create_file("x/commit", b"second")
        assert storage.read("x/commit") == b"first"
        assert storage.list("x") == ("commit",)

    def test_a_listing_names_files_and_folders_once(self, storage: Storage) -> None:
        for path in ("top/b/one", "top/b/two", "top/a", "other"):
            storage.write_file(path, [b"."])
        assert storage.list("top") == ("a", "b")
        assert set(storage.list("")) == {"top", "other"}
        assert storage.size("top/b") is None

    def test_the_sizes_of_a_folder_are_those_of_its_files(self, storage: Storage) -> None:
        for path, content in {"top/b/one": b"1", "top/a": b"22", "top/empty": b"", "other": b"."}.items():
            storage.write_file(path, [content])
        assert storage.sizes("top") == {"a": 2, "empty": 0}
        assert storage.sizes("") == {"other": 1}
        assert storage.sizes("nowhere") == storage.sizes("top/a") == {}

    def test_deleting_takes_all_that_is_inside_and_may_be_repeated(self, storage: Storage) -> None:
        storage.write_file("d/e/f", [b"."])
        storage.write_file("d/g", [b"."])
        storage.delete("d/g")
        assert storage.list("d") == ("e",)
        storage.delete("d")
        storage.delete("d")
        assert storage.size("d/e/f") is None
        assert storage.list("d") == ()

    def test_a_folder_with_something_in_it_is_not_empty(self, storage: Storage) -> None:
        storage.write_file("d/f", [b"."])
        storage.delete_if_empty("d")
        assert storage.read("d/f") == b"."
        storage.delete("d/f")
        storage.delete_if_empty("d")
        storage.delete_if_empty("d")
        assert "d" not in storage.list("")

    def test_a_file_grows_only_from_the_size_that_is_expected(self, storage: Storage) -> None:
        storage.append("r/lines", b"one\n", at=0)
        storage.append("r/lines", b"two\n", at=4)
        assert storage.read("r/lines") == b"one\ntwo\n"
        for wrong in (0, 4, 9):
            with pytest.raises(FileExistsError, match="somebody else"):
                storage.append("r/lines", b"three\n", at=wrong)
        assert storage.read("r/lines") == b"one\ntwo\n"
        assert storage.append_limit_bytes >= 1 << 20

    def test_parts_of_a_file_are_written_in_any_order_or_refused(self, storage: Storage) -> None:
        if not storage.ranged_writes:
            with pytest.raises(CheckpointError, match="f: expected a storage that can write into the middle of a file"):
                storage.write_ranges("f", [RangeWrite(0, b".")])
            assert storage.size("f") is None
            return
        storage.write_ranges("new/f", [RangeWrite(6, memoryview(b"67")), RangeWrite(2, b"23")])
        assert storage.read("new/f") == bytes(2) + b"23" + bytes(2) + b"67"
        storage.write_ranges("new/f", [RangeWrite(0, b"01"), RangeWrite(4, b"45"), RangeWrite(6, b"")])
        assert storage.read("new/f") == b"01234567"
