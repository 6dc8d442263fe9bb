"""A job that saves to an object store comes back from the disks of its own nodes, without a download.

Without it every recovery would download what lies on the disks of the nodes.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from multiproc.sharded_toy import LONG, STEPS
from multiproc.sharded_world import check, run, surviving
from multiproc.snapshot_worlds import completed, damage, train_to_the_end
from multiproc.storage_ranks import train_shards_on_s3
from multiproc.world import ProcessWorld
from object_store.store import Store
from trainctl.core.records.generation import Rung
from trainctl.core.records.spec import DISK, CheckpointSpec, JobSpec, RecoverySpec, SnapshotsSpec
from trainctl.core.records.step import StepFigures

pytest_plugins = ["object_store.fixtures"]
pytestmark = pytest.mark.multiproc
DATA = ".safetensors"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[int, StepFigures]:
    """What a run comes to, wherever it saves."""
    return run(tmp_path_factory.mktemp("undisturbed") / "run", 2, save_every=STEPS, **LONG)


def on(store: Store, folder: Path) -> ProcessWorld:
    env = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    snapshots = SnapshotsSpec(interval_steps=2, place=DISK)
    spec = JobSpec(
        checkpoint=CheckpointSpec(uri=store.uri, interval_steps=30, background=False, snapshots=snapshots),
        recovery=RecoverySpec(profile="fast"),
    )
    options = {**LONG, "env": env}
    return ProcessWorld(folder, 2, train_shards_on_s3, options=options, spec=spec, nodes=["a", "b"])


def newer_than_saved(w: ProcessWorld) -> bool:
    """Whether there is a checkpoint, and both nodes completed a snapshot after it."""
    saved = w.saved()
    return saved is not None and completed(w, saved.step + 1)


def lose_all(w: ProcessWorld, *, damaged: bool = False) -> None:
    w.propose(range(2))
    w.until(lambda: newer_than_saved(w))
    for life in w.members():
        life.kill()
        life.process.join()
    if damaged:
        damage("data/w00001-*.safetensors", w.memory("a"), w.memory("b"))
    train_to_the_end(w)


def test_all_workers_are_lost_and_nothing_is_downloaded(
    store: Store, tmp_path: Path, undisturbed: dict[int, StepFigures]
) -> None:
    with on(store, tmp_path) as w:
        lose_all(w)
        assert [record.rung for record in w.records[1:]] == [Rung.SNAPSHOT]
        assert w.records[-1].target_step > 30
        assert store.proxy.seen("PUT", DATA)
        assert not store.proxy.seen("GET", DATA)
        check(surviving(w), undisturbed)


def test_where_the_disks_lie_the_store_is_the_next_tier(
    store: Store, tmp_path: Path, undisturbed: dict[int, StepFigures]
) -> None:
    with on(store, tmp_path) as w:
        lose_all(w, damaged=True)
        assert [record.rung for record in w.records[1:]] == [Rung.SNAPSHOT, Rung.CHECKPOINT]
        (said,) = w.lost_snapshots.values()
        assert any("is corrupt" in one for one in said)
        assert store.proxy.seen("GET", DATA)
        check(surviving(w), undisturbed)
