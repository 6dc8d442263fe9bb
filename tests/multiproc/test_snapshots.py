"""Snapshots in the memory of nodes: a lost shard costs the steps since the last of them, not since a checkpoint."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from multiproc.sharded_toy import train
from multiproc.test_session_sharded import check, run, surviving
from multiproc.world import ProcessWorld, WorldError
from trainctl.checkpoint.memory.node_memory import NodeMemory
from trainctl.core.records.generation import Rung
from trainctl.core.records.part import NO_ROOM
from trainctl.core.records.spec import CheckpointSpec, JobSpec, RecoverySpec, SnapshotsSpec
from trainctl.core.records.step import StepFigures

pytestmark = pytest.mark.multiproc
STEPS = 100
"""Enough for a few snapshots, however slow the machine makes them beside such small steps."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[int, StepFigures]:
    """What a run comes to, on however many ranks."""
    return run(tmp_path_factory.mktemp("undisturbed") / "run", 2, steps=STEPS)


def make(folder: Path, nodes: list[str], *, interval: int = 2, faults: str = "[]", **options: Any) -> ProcessWorld:
    folder.mkdir(exist_ok=True)
    spec = JobSpec(
        checkpoint=CheckpointSpec(
            uri=str(folder / "saved"), interval_steps=0, snapshots=SnapshotsSpec(interval_steps=interval)
        ),
        recovery=RecoverySpec(profile="fast"),
    )
    given = {"steps": STEPS, "hidden": 37, **options}
    return ProcessWorld(folder, len(nodes), train, options=given, spec=spec, nodes=nodes, faults=faults)


def train_to_the_end(w: ProcessWorld) -> None:
    w.until(lambda: all(life.finished for life in w.members()))
    w.stop()


def completed(w: ProcessWorld, step: int) -> bool:
    """Whether every node completed a snapshot of ``step`` or later."""
    return all(
        any(held.snapshot.step >= step for held in NodeMemory(w.memory(node), "job-1").held()) for node in w.nodes
    )


def parts_told(w: ProcessWorld) -> dict[int, tuple[int, ...]]:
    """Which parts of the newest snapshot their node has, by those who tell: the first worker of each node."""
    assert all(made.generation == 1 and made.made > 0 and not made.error for made in w.snapshots.values())
    return {slot: made.newest.held for slot, made in w.snapshots.items() if made.newest is not None}


@pytest.mark.parametrize(
    ("nodes", "lost"),
    [
        pytest.param(["a", "a", "b", "b"], [1], marks=pytest.mark.chaos),
        (["a", "a", "b", "b"], [0, 1, 2, 3]),
        (["a", "b", "c"], [2]),
        (["a", "a"], [0]),
    ],
)
def test_lost_ranks_send_all_back_to_the_snapshot(
    tmp_path: Path, undisturbed: dict[int, StepFigures], nodes: list[str], lost: list[int]
) -> None:
    with make(tmp_path / "lost", nodes) as w:
        w.propose(range(len(nodes)))
        w.until(partial(completed, w, 4))
        w.until(lambda: len(w.snapshots) == len(set(nodes)))
        assert (
            parts_told(w)
            == {
                3: {0: (0, 2), 1: (0, 1), 2: (1, 2)},
                2: {0: (0, 1, 2, 3), 2: (0, 1, 2, 3)},
                1: {0: (0, 1)},
            }[len(set(nodes))]
        )
        for slot in lost:
            w.lives[slot].kill()
        train_to_the_end(w)
        assert not w.notices
        assert w.records[-1].rung is Rung.SNAPSHOT
        assert w.records[-1].target_step >= 4
        (load,) = [r.load for life in w.lives.values() for r in life.recoveries if r.load is not None]
        assert (load.step, load.uri.split("-")[0]) == (w.records[-1].target_step, "snapshot://step")
        assert [part.rank for part in load.parts] == list(range(len(nodes)))
        assert all(part.data_bytes > 0 and part.seconds["read"] > 0 for part in load.parts)
        assert load.bottleneck
        assert {checkpoint.step for checkpoint in w.checkpoints} <= {20, STEPS}, "snapshots are no checkpoints"
        check(surviving(w), undisturbed)
        assert not any(NodeMemory(w.memory(node), "job-1").held() for node in w.nodes)  # given back at the end


def test_a_lost_node_takes_nothing_with_it(tmp_path: Path, undisturbed: dict[int, StepFigures]) -> None:
    """Its memory is gone, too; the ranks that take its place are on a node that never had anything."""
    nodes = ["a", "a", "b", "b"]
    with make(tmp_path / "lost", nodes) as w:
        w.propose(range(len(nodes)))
        w.until(partial(completed, w, 4))
        for slot in (0, 1):
            w.lives[slot].kill()
        w.forget_node("a", "c")
        train_to_the_end(w)
        assert w.records[-1].rung is Rung.SNAPSHOT
        recoveries = [recovery for slot in range(4) for recovery in w.lives[slot].recoveries[-1:]]
        assert any("rank 2" in recovery.received_bytes for recovery in recoveries)  # what c lacked came from b
        (load,) = [recovery.load for recovery in recoveries if recovery.load is not None]
        assert all(part.seconds["fetch"] > 0 for part in load.parts)
        check(surviving(w), undisturbed)


def test_on_fewer_ranks_and_nodes(tmp_path: Path, undisturbed: dict[int, StepFigures]) -> None:
    """A snapshot of four ranks on two nodes is loaded by two ranks on one."""
    nodes = ["a", "a", "b", "b"]
    with make(tmp_path / "lost", nodes) as w:
        w.replace_lost = False
        w.propose(range(len(nodes)))
        w.until(partial(completed, w, 4))
        for slot in (0, 1):
            w.lives[slot].kill()
        train_to_the_end(w)
        assert {record.rung for record in w.records[1:]} == {Rung.SNAPSHOT}
        assert len(w.records[-1].members) == 2
        check(surviving(w), undisturbed)


def test_a_damaged_snapshot_is_not_loaded(tmp_path: Path) -> None:
    """Both copies of a part have a flipped bit: the worker says so, and nothing of the snapshot is left on its node."""
    nodes = ["a", "b"]
    with make(tmp_path / "lost", nodes, interval=5) as w:
        w.propose(range(len(nodes)))
        w.until(partial(completed, w, 5))
        for life in w.members():
            os.kill(life.pid, signal.SIGSTOP)
        for path in w.memory("").rglob("data/w00001-*.safetensors"):
            data = bytearray(path.read_bytes())
            data[-1] ^= 1
            path.write_bytes(data)
        w.lives[1].kill()
        os.kill(w.lives[0].pid, signal.SIGCONT)
        with pytest.raises(
            WorldError, match=r"SnapshotLostError: the snapshot of step \d+ cannot be loaded on [ab]: .*corrupt"
        ) as found:
            train_to_the_end(w)
        first = str(found.value).partition("cannot be loaded on ")[2][0]  # both read what is damaged
        assert not NodeMemory(w.memory(first), "job-1").attempts()


def test_without_room_training_goes_on_and_says_so(tmp_path: Path) -> None:
    nodes = ["a", "b"]
    with make(tmp_path / "full", nodes, room_bytes=100) as w:
        w.propose(range(len(nodes)))
        train_to_the_end(w)
        (notice,) = {text.partition(" on node")[0] for text in w.notices}
        assert notice.startswith("no more snapshots in this generation, since that of step 2 failed: rank 0: ")
        assert not any(NodeMemory(w.memory(node), "job-1").attempts() for node in nodes)
        assert {made.cause for made in w.snapshots.values()} == {NO_ROOM}
        assert {made.made for made in w.snapshots.values()} == {0}
        assert w.checkpoints[-1].step == STEPS
