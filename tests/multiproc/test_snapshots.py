"""Snapshots in the memory of nodes: a lost shard costs the steps since the last of them, not since a checkpoint.

Without it the loss of a node would cost a sharded job all steps since its checkpoint.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from multiproc.sharded_toy import LONG, STEPS, train
from multiproc.sharded_world import check, run, surviving
from multiproc.snapshot_worlds import completed, damage, train_to_the_end
from multiproc.world import ProcessWorld
from trainctl.checkpoint.memory.node_memory import NodeMemory
from trainctl.core.records.generation import Rung
from trainctl.core.records.part import NO_ROOM
from trainctl.core.records.spec import CheckpointSpec, JobSpec, RecoverySpec, SnapshotsSpec
from trainctl.core.records.step import StepFigures

pytestmark = pytest.mark.multiproc


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[int, StepFigures]:
    """What a run comes to, on however many ranks."""
    return run(tmp_path_factory.mktemp("undisturbed") / "run", 2, save_every=STEPS, **LONG)


def make(
    folder: Path,
    nodes: list[str],
    *,
    domains: Mapping[str, str] | None = None,
    interval: int = 2,
    save_every: int = 0,
    **options: Any,
) -> ProcessWorld:
    folder.mkdir(exist_ok=True)
    spec = JobSpec(
        checkpoint=CheckpointSpec(
            uri=str(folder / "saved"), interval_steps=save_every, snapshots=SnapshotsSpec(interval_steps=interval)
        ),
        recovery=RecoverySpec(profile="fast"),
    )
    given = {**LONG, **options}
    return ProcessWorld(folder, len(nodes), train, options=given, spec=spec, nodes=nodes, domains=domains)


def parts_told(w: ProcessWorld) -> dict[int, tuple[int, ...]]:
    """Which parts of the newest snapshot their node has, by those who tell: the first worker of each node."""
    assert all(made.generation == 1 and made.made > 0 and not made.error for made in w.snapshots.values())
    return {slot: made.newest.held for slot, made in w.snapshots.items() if made.newest is not None}


@pytest.mark.parametrize(
    ("nodes", "lost"),
    [
        pytest.param(["a", "a", "b", "b"], [1], marks=pytest.mark.chaos),
        (["a", "a", "b", "b"], [0, 1, 2, 3]),
        pytest.param(["a", "b", "c"], [2], marks=pytest.mark.chaos),
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


def test_a_lost_rack_takes_nothing_with_it(tmp_path: Path, undisturbed: dict[int, StepFigures]) -> None:
    """Two nodes of one failure domain go together; in the order of the ranks, they would be each other's neighbours."""
    with make(tmp_path / "lost", ["a", "b", "c", "d"], domains={"a": "r1", "b": "r1", "c": "r2", "d": "r2"}) as w:
        w.propose(range(4))
        w.until(partial(completed, w, 4))
        w.until(lambda: len(w.snapshots) == 4)
        assert parts_told(w) == {0: (0, 2), 1: (1, 3), 2: (0, 2), 3: (1, 3)}
        assert {slot: made.failure_domain for slot, made in w.snapshots.items()} == {0: "r1", 1: "r1", 2: "r2", 3: "r2"}
        for slot in (0, 1):
            w.lives[slot].kill()
        w.domains.update(e="r3", f="r3")
        w.forget_node("a", "e")
        w.forget_node("b", "f")
        train_to_the_end(w)
        assert w.records[-1].rung is Rung.SNAPSHOT
        assert not w.notices
        check(surviving(w), undisturbed)


def test_copies_in_the_same_failure_domain_are_said(tmp_path: Path) -> None:
    with make(tmp_path / "one", ["a", "b"], domains={"a": "r1", "b": "r1"}) as w:
        w.propose(range(2))
        train_to_the_end(w)
        assert set(w.notices) == {
            "the snapshots of all 2 ranks have their copy on another node of the same failure domain r1, and are lost "
            "with it: no other domain has nodes of the job for them"
        }


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


def stand_still(w: ProcessWorld, lost: int) -> None:
    """Nobody writes any more; afterwards ``wake`` lets those who are not ``lost`` go on."""
    for life in w.members():
        os.kill(life.pid, signal.SIGSTOP)
    w.lives[lost].kill()


def wake(w: ProcessWorld, lost: int) -> None:
    for life in w.members():
        if life.slot != lost:
            os.kill(life.pid, signal.SIGCONT)


@pytest.mark.parametrize(
    "pattern",
    [
        "data/w00001-*.safetensors",
        pytest.param("parts/w00001.json", marks=pytest.mark.chaos),
        pytest.param("parts/contents.json", marks=pytest.mark.chaos),
        "manifest.json",
    ],
)
def test_a_damaged_copy_is_replaced_by_the_other_nodes(
    tmp_path: Path, undisturbed: dict[int, StepFigures], pattern: str
) -> None:
    """On one of two nodes a file has a flipped bit: the snapshot is loaded all the same, and what was wrong is told."""
    with make(tmp_path / "lost", ["a", "b"], interval=5) as w:
        w.propose(range(2))
        w.until(partial(completed, w, 5))
        stand_still(w, 1)
        damage(pattern, w.memory("b"))
        wake(w, 1)
        train_to_the_end(w)
        assert not w.lost_snapshots, w.lost_snapshots
        assert {record.rung for record in w.records[1:]} == {Rung.SNAPSHOT}
        (load,) = [r.load for life in w.lives.values() for r in life.recoveries if r.load is not None]
        assert load.damaged
        assert all(what.startswith("b: ") for what in load.damaged)
        assert any(pattern.partition("*")[0] in what for what in load.damaged)
        check(surviving(w), undisturbed)


def test_halves_that_are_damaged_on_different_nodes_make_a_whole(
    tmp_path: Path, undisturbed: dict[int, StepFigures]
) -> None:
    """Each node has a damaged part, but not the same one."""
    with make(tmp_path / "lost", ["a", "b"], interval=5) as w:
        w.propose(range(2))
        w.until(partial(completed, w, 5))
        stand_still(w, 0)
        damage("data/w00000-*.safetensors", w.memory("a"))
        damage("data/w00001-*.safetensors", w.memory("b"))
        wake(w, 0)
        train_to_the_end(w)
        assert {record.rung for record in w.records[1:]} == {Rung.SNAPSHOT}
        (load,) = [r.load for life in w.lives.values() for r in life.recoveries if r.load is not None]
        assert {what.partition(":")[0] for what in load.damaged} == {"a", "b"}
        check(surviving(w), undisturbed)


def test_where_no_copy_is_right_the_checkpoint_is_loaded(tmp_path: Path, undisturbed: dict[int, StepFigures]) -> None:
    """Both copies of a part have a flipped bit: who reads it says so, and the next generation loads a checkpoint."""
    with make(tmp_path / "lost", ["a", "b"], interval=5, save_every=60) as w:
        w.propose(range(2))
        w.until(lambda: completed(w, 65) and w.saved() is not None)
        stand_still(w, 1)
        damage("data/w00001-*.safetensors", w.memory("a"), w.memory("b"))
        wake(w, 1)
        train_to_the_end(w)
        (said,) = w.lost_snapshots.values()
        assert any("cannot be loaded on" in one and "is corrupt" in one for one in said)
        assert Rung.SNAPSHOT in {record.rung for record in w.records}
        assert w.records[-1].rung is Rung.CHECKPOINT
        check(surviving(w), undisturbed)


def test_where_the_checkpoint_is_damaged_an_older_snapshot_is_loaded(
    tmp_path: Path, undisturbed: dict[int, StepFigures]
) -> None:
    """The checkpoint is newer than any snapshot: when it cannot be loaded, the snapshot of the lineage before can."""
    with make(tmp_path / "lost", ["a", "b"], interval=40, save_every=44) as w:
        w.propose(range(2))
        w.until(lambda: completed(w, 40) and w.saved() is not None)
        stand_still(w, 1)
        saved = w.saved()
        assert saved is not None
        assert saved.step == 44
        damage("data/w00001-*.safetensors", Path(saved.uri))
        wake(w, 1)
        train_to_the_end(w)
        assert [record.rung for record in w.records[1:]] == [Rung.CHECKPOINT, Rung.SNAPSHOT]
        assert (w.records[-1].target_step, list(w.refused)) == (40, [saved.uri])
        check(surviving(w), undisturbed)


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
