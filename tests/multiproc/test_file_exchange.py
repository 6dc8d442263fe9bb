"""Files of a snapshot go from rank to rank whole, or not at all.

Without it a node could keep half a file of a snapshot and offer it in a recovery.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from multiproc.threads import world
from trainctl.checkpoint.exchange.lanes import run_lanes
from trainctl.core.errors import InternalError
from trainctl.parallel.collectives.gloo import GlooCollectives
from trainctl.parallel.collectives.port import Group, Rendezvous
from trainctl.parallel.recovery import file_exchange
from trainctl.parallel.recovery.file_exchange import FileExchange

pytestmark = pytest.mark.multiproc


def nothing() -> None:
    """Nobody looks."""


def joined(rank: int, store: str, size: int) -> Group:
    rendezvous = Rendezvous(store_address=store, prefix="p", rank=rank, size=size, address="127.0.0.1", timeout_s=20.0)
    pending = GlooCollectives().connect(rendezvous)
    assert pending.done_within(20.0)
    assert not pending.error()
    return pending.group()


@pytest.fixture(autouse=True)
def small_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_exchange, "MESSAGE_BYTES", 1000)


def test_everybody_sends_to_everybody_twice(tmp_path: Path) -> None:
    """Random files, some empty, some bundles without any; all lanes of a rank at once."""
    size, draw = 3, random.Random(5)
    contents = {
        (source, turn): {
            f"data/{turn}-{n}": draw.randbytes(draw.choice([0, 1, 999, 1000, 1001, 12345])) for n in range(turn * 2)
        }
        for source in range(size)
        for turn in range(3)
    }
    for (source, _), files in contents.items():
        for name, data in files.items():
            path = tmp_path / f"from-{source}" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def body(rank: int, store: str) -> tuple[int, int]:
        exchange = FileExchange(joined(rank, store, size))
        told: list[int] = []
        for turn in range(3):
            others = [other for other in range(size) if other != rank]
            lanes = [exchange.receive(tmp_path / f"at-{rank}" / str(other), other, got=told.append) for other in others]
            names = list(contents[rank, turn])
            lanes += [exchange.send(tmp_path / f"from-{rank}", names, other) for other in others]
            run_lanes(lanes, alive=nothing, check=nothing)
        assert max(told) <= 1000
        return exchange.received_bytes.total(), sum(told)

    received = world(size, body)
    for rank in range(size):
        for (source, _), files in contents.items():
            for name, data in files.items() if source != rank else ():
                assert (tmp_path / f"at-{rank}" / str(source) / name).read_bytes() == data
        sent = sum(len(d) for (s, _), files in contents.items() if s != rank for d in files.values())
        assert received[rank] == (sent, sent)
    assert not list(tmp_path.rglob(".*.part"))


def pair(tmp_path: Path, names: list[str], receiver: Callable[[FileExchange], None]) -> None:
    def body(rank: int, store: str) -> None:
        exchange = FileExchange(joined(rank, store, 2))
        if rank == 0:
            run_lanes([exchange.send(tmp_path / "source", names, 1)], alive=nothing, check=nothing)
            run_lanes([exchange.send(tmp_path / "source", [], 1)], alive=nothing, check=nothing)
        else:
            receiver(exchange)

    world(2, body)


def test_both_ends_are_told_of_each_message(tmp_path: Path) -> None:
    """The receiver before anything of it is in the file, which has its name only after the last."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a").write_bytes(os.urandom(2500))
    (tmp_path / "source" / "b").write_bytes(os.urandom(1000))
    there: list[list[str]] = []

    def look(number: int) -> None:
        assert number == len(there)
        there.append(sorted(path.name for path in tmp_path.glob("target/*")))

    def body(rank: int, store: str) -> list[int]:
        exchange, told = FileExchange(joined(rank, store, 2)), list[int]()
        if rank == 0:
            lane = exchange.send(tmp_path / "source", ["a", "b"], 1, reach=told.append)
        else:
            lane = exchange.receive(tmp_path / "target", 0, reach=look)
        run_lanes([lane], alive=nothing, check=nothing)
        return told

    sent, _ = world(2, body)
    assert sent == list(range(6)), "two that say what comes, three of a, one of b"
    assert there == [[], [], [], [".a.part"], [".a.part"], ["a"]]


def test_a_full_memory_fails_the_bundle_and_the_next_one_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "source").mkdir()
    for name in "abc":
        (tmp_path / "source" / name).write_bytes(os.urandom(3500))

    def no_room(self: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(target))

    def receiver(exchange: FileExchange) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(Path, "rename", no_room)
            with pytest.raises(OSError, match="No space left"):
                run_lanes([exchange.receive(tmp_path / "target", 0)], alive=nothing, check=nothing)
        run_lanes([exchange.receive(tmp_path / "target", 0)], alive=nothing, check=nothing)

    pair(tmp_path, ["a", "b", "c"], receiver)
    assert not [path for path in (tmp_path / "target").iterdir() if not path.name.startswith(".")]


@pytest.mark.parametrize("size", [3500, 35000])
def test_a_full_disk_fails_the_bundle_and_the_next_one_comes(tmp_path: Path, size: int) -> None:
    """The kernel itself says so, to what is written, or to what is still in a buffer when the file is closed."""
    (tmp_path / "source").mkdir()
    (tmp_path / "target").mkdir()
    for name in "abc":
        (tmp_path / "source" / name).write_bytes(os.urandom(size))
    (tmp_path / "target" / ".b.part").symlink_to("/dev/full")

    def receiver(exchange: FileExchange) -> None:
        with pytest.raises(OSError, match="No space left"):
            run_lanes([exchange.receive(tmp_path / "target", 0)], alive=nothing, check=nothing)
        run_lanes([exchange.receive(tmp_path / "target", 0)], alive=nothing, check=nothing)

    pair(tmp_path, ["a", "b", "c"], receiver)
    assert [path.name for path in (tmp_path / "target").iterdir()] == ["a"]


def test_whose_disk_is_full_still_sends_what_others_wait_for(tmp_path: Path) -> None:
    long, short = os.urandom(50_000), os.urandom(3_000)
    for rank, data in enumerate((short, long)):
        (tmp_path / f"from-{rank}").mkdir()
        (tmp_path / f"from-{rank}" / "a").write_bytes(data)
        (tmp_path / f"at-{rank}").mkdir()
    (tmp_path / "at-1" / ".a.part").symlink_to("/dev/full")

    def body(rank: int, store: str) -> str:
        exchange = FileExchange(joined(rank, store, 2))
        lanes = [exchange.receive(tmp_path / f"at-{rank}", 1 - rank)]
        lanes.append(exchange.send(tmp_path / f"from-{rank}", ["a"], 1 - rank))
        try:
            run_lanes(lanes, alive=nothing, check=nothing)
        except OSError as error:
            return str(error)
        return ""

    first, second = world(2, body)
    assert first == ""
    assert "No space left" in second
    assert (tmp_path / "at-0" / "a").read_bytes() == long


def test_nothing_is_written_outside(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "outside").write_bytes(b"1")

    def receiver(exchange: FileExchange) -> None:
        with pytest.raises(InternalError, match=r"expected the name of a file inside a snapshot, found '\.\./outside'"):
            run_lanes([exchange.receive(tmp_path / "target", 0)], alive=nothing, check=nothing)

    def body(rank: int, store: str) -> None:
        exchange = FileExchange(joined(rank, store, 2))
        if rank == 0:
            lane = exchange.send(tmp_path / "source", ["../outside"], 1)
            next(lane), next(lane)
        else:
            receiver(exchange)

    world(2, body)


def test_whoever_is_stopped_leaves_at_once(tmp_path: Path) -> None:
    class Stopped(BaseException):
        pass

    def stop() -> None:
        raise Stopped

    def body(rank: int, store: str) -> None:
        exchange = FileExchange(joined(rank, store, 2))
        if rank == 1:
            with pytest.raises(Stopped):
                run_lanes([exchange.receive(tmp_path / "target", 0)], alive=nothing, check=stop)

    world(2, body)


def test_what_is_received_outlives_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every folder that is new, or has a new name in it, is synced after that."""
    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "f").write_bytes(b"bytes")
    (tmp_path / "from" / "data").mkdir()
    (tmp_path / "from" / "data" / "g").write_bytes(b"more")
    synced: dict[Path, list[str]] = {}
    plainly = os.fsync

    def fsync(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if path.is_dir():
            synced[path] = sorted(os.listdir(path))
        plainly(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)

    def body(rank: int, store: str) -> None:
        exchange = FileExchange(joined(rank, store, 2))
        lane = (
            exchange.send(tmp_path / "from", ["f", "data/g"], 1)
            if rank == 0
            else exchange.receive(tmp_path / "to" / "here", 0)
        )
        run_lanes([lane], alive=nothing, check=nothing)

    world(2, body)
    here = tmp_path / "to" / "here"
    assert synced == {
        tmp_path: ["from", "to"], tmp_path / "to": ["here"], here: ["data", "f"], here / "data": ["g"],
    }  # fmt: skip
