"""Without it a crash could leave half a line in a job's records that breaks all who read them, or a disk fill up."""

from __future__ import annotations

import random
import uuid
from pathlib import Path

import pytest

from trainctl.checkpoint.storage.line_log import LineLog, part_path, parts_of
from trainctl.checkpoint.storage.opening import open_storage
from trainctl.checkpoint.storage.port import Storage


@pytest.fixture(params=["local", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path / "r") if request.param == "local" else f"memory://{uuid.uuid4()}")


def text(storage: Storage, stem: str) -> bytes:
    return b"".join(storage.read(part_path(stem, ".log", part)) for part in parts_of(storage, stem, ".log"))


@pytest.mark.parametrize("seed", range(5))
def test_lines_survive_in_order_over_parts_and_reopening(storage: Storage, seed: int) -> None:
    chance = random.Random(seed)
    lines = [f"line {i} {'x' * chance.randrange(60)}\n".encode() for i in range(200)]
    log = LineLog(storage, "a/b", ".log", part_bytes=chance.randrange(80, 900))
    log.open()
    begin = 0
    while begin < len(lines):
        end = begin + chance.randrange(1, 9)
        log.append(b"".join(lines[begin:end]))
        begin = end
        if chance.random() < 0.2:
            log = LineLog(storage, "a/b", ".log", part_bytes=chance.randrange(80, 900))
            assert log.open().endswith(lines[min(end, len(lines)) - 1])
    assert text(storage, "a/b") == b"".join(lines)
    assert len(parts_of(storage, "a/b", ".log")) > 3


def test_a_line_that_was_cut_off_is_removed(storage: Storage) -> None:
    storage.write_file("a.log", [b"whole\nhal"])
    log = LineLog(storage, "a", ".log")
    assert log.open() == b"whole\n"
    log.append(b"next\n")
    assert text(storage, "a") == b"whole\nnext\n"
    storage.write_file("b.log", [b"only half"])
    log = LineLog(storage, "b", ".log")
    assert log.open() == b""
    log.append(b"x\n")
    assert text(storage, "b") == b"x\n"


def test_the_oldest_parts_are_dropped(storage: Storage) -> None:
    log = LineLog(storage, "a", ".log", part_bytes=100, max_bytes=300)
    log.open()
    for number in range(100):
        log.append(b"%9d\n" % number)
    kept = text(storage, "a")
    assert 200 < len(kept) <= 300
    assert kept.endswith(b"%9d\n" % 99)
    assert log.open().endswith(b"%9d\n" % 99)


def test_a_second_writer_is_found(storage: Storage) -> None:
    first, second = (LineLog(storage, "a", ".log") for _ in range(2))
    first.open()
    second.open()
    first.append(b"1\n")
    with pytest.raises(FileExistsError):
        second.append(b"2\n")
    assert second.open() == b"1\n"
    second.append(b"2\n")
    assert text(storage, "a") == b"1\n2\n"


def test_other_files_of_the_folder_are_no_parts(storage: Storage) -> None:
    for name in ("a.log", "a.1.log", "ab.log", "a.x.log", "a.1.txt", "b.1.log"):
        storage.write_file(name, [b"x\n"])
    assert parts_of(storage, "a", ".log") == [0, 1]
