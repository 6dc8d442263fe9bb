"""Ranks go back from a damaged checkpoint to the one before, all alike; and they train on while a store refuses.

Without it one damaged file could end a job, or ranks go on from different steps.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from multiproc.armed_faults import fault
from multiproc.storage_ranks import train_on_s3, train_where_one_reads_badly
from multiproc.toy import final_states, train
from multiproc.toy_world import OPTIONS, reached
from multiproc.world import ProcessWorld
from object_store.store import Store
from trainctl.checkpoint.kept.catalog import survey
from trainctl.checkpoint.manifest.names import DAMAGED, step_folder
from trainctl.core.records.generation import CheckpointRef, Rung
from trainctl.core.records.spec import CheckpointKeepSpec, CheckpointSpec, JobSpec

pytest_plugins = ["object_store.fixtures"]
pytestmark = pytest.mark.multiproc

SIZE = 3
IN_STEP_11 = fault("step.compute", "stop", step=11, generation=1)
SAVES = JobSpec(checkpoint=CheckpointSpec(interval_steps=4, background=False, keep=CheckpointKeepSpec(last=4)))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("undisturbed")
    with ProcessWorld(
        folder, SIZE, train, options=OPTIONS, spec=JobSpec(checkpoint=CheckpointSpec(interval_steps=0))
    ) as w:
        w.run()
        (state,) = final_states(folder, SIZE)
        return state


def flip(ref: CheckpointRef) -> None:
    path = max(Path(ref.uri).glob("data/*"), key=lambda file: file.stat().st_size)
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))


def truncate(ref: CheckpointRef) -> None:
    path = next(Path(ref.uri).glob("data/*"))
    os.truncate(path, path.stat().st_size - 1)


def lose_a_part(ref: CheckpointRef) -> None:
    next(Path(ref.uri).glob("parts/*")).unlink()


def start_again(w: ProcessWorld, damage: Callable[[CheckpointRef], None]) -> CheckpointRef:
    """All die in step 11, and somebody does something to the checkpoint of step 8."""
    w.propose(range(SIZE))
    w.until(lambda: w.faults.reached(0) and reached(w, 9))
    for life in w.members():
        life.kill()
    newest = w.checkpoints[1].ref
    assert newest is not None
    damage(newest)
    w.until(lambda: all(life.finished for life in w.members()))
    w.stop()
    return newest


@pytest.mark.parametrize("damage", [flip, truncate, lose_a_part], ids=lambda damage: damage.__name__)
def test_where_the_newest_is_damaged_all_go_on_from_the_one_before(
    tmp_path: Path, undisturbed: bytes, damage: Callable[[CheckpointRef], None]
) -> None:
    with ProcessWorld(tmp_path, SIZE, train, options=OPTIONS, spec=SAVES, faults=[IN_STEP_11]) as w:
        newest = start_again(w, damage)
        assert [r.target_step for r in w.records if r.rung is Rung.CHECKPOINT] == [8, 4]
        assert list(w.refused) == [newest.uri]
        assert (Path(newest.uri) / DAMAGED).exists()
        assert final_states(tmp_path, SIZE) == {undisturbed}
        found = survey(str(tmp_path / "checkpoints"))
        assert [info.ref.step for info in found.checkpoints] == [12, 8, 4]
        assert [info.ref.attempt for info in found.damaged] == [newest.attempt], "there is room for it"


def test_what_only_one_rank_finds_makes_all_go_back(tmp_path: Path, undisturbed: bytes) -> None:
    """The others had loaded it: they hold nothing that counts, and nobody copies from them."""
    options = {**OPTIONS, "bad_slot": 1, "bad_step": step_folder(8)}
    with ProcessWorld(
        tmp_path, SIZE, train_where_one_reads_badly, options=options, spec=SAVES, faults=[IN_STEP_11]
    ) as w:
        start_again(w, lambda ref: None)
        assert [r.target_step for r in w.records if r.rung is Rung.CHECKPOINT] == [8, 4]
        assert not [r.holders for r in w.records if r.rung is Rung.CHECKPOINT and r.holders]
        assert final_states(tmp_path, SIZE) == {undisturbed}


def on(store: Store, folder: Path, **checkpoint: Any) -> ProcessWorld:
    env = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    spec = JobSpec(checkpoint=CheckpointSpec(uri=store.uri, interval_steps=4, **checkpoint))
    return ProcessWorld(folder, SIZE, train_on_s3, options={**OPTIONS, "env": env}, spec=spec)


def test_a_store_that_refuses_costs_the_checkpoint_and_not_the_training(
    store: Store, tmp_path: Path, undisturbed: bytes
) -> None:
    store.proxy.when("PUT", f"{step_folder(4)}/").always().deny()
    store.proxy.when("PUT", f"{step_folder(8)}/").times(3).slow_down()
    store.proxy.when("PUT", "manifest.json").lose_the_answer()
    with on(store, tmp_path) as w:
        w.run()
        assert len(w.records) == 1
        assert final_states(tmp_path, SIZE) == {undisturbed}
        assert [(c.step, c.ref is not None) for c in w.checkpoints] == [(4, False), (8, True), (12, True)]
        assert "lack a right" in w.checkpoints[0].error or "AccessDenied" in w.checkpoints[0].error
    assert not [key for key in store.objects() if step_folder(4) in key]


def test_all_are_lost_and_go_on_from_the_store(store: Store, tmp_path: Path, undisturbed: bytes) -> None:
    with on(store, tmp_path, background=False) as w:
        w.propose(range(SIZE))
        w.until(lambda: bool(w.checkpoints))
        store.proxy.when("GET", "data/").times(2).break_in_the_body(1000)
        store.proxy.when("GET", "manifest.json").slow_down()
        for life in w.members():
            life.kill()
        w.until(lambda: all(life.finished for life in w.members()))
        w.stop()
        assert [r.rung for r in w.records][1:] == [Rung.CHECKPOINT]
        assert final_states(tmp_path, SIZE) == {undisturbed}
