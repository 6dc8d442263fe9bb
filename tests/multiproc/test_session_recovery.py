"""Without it a killed or frozen worker could cost steps, change the weights, or damage what was saved."""

from __future__ import annotations

import os
import random
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from multiproc.armed_faults import fault
from multiproc.toy import final_states
from multiproc.toy_world import SIZE, STEPS, make, reached
from multiproc.world import ProcessWorld
from trainctl.checkpoint.kept.catalog import survey
from trainctl.checkpoint.manifest.names import step_folder
from trainctl.core.records.generation import Rung
from trainctl.core.records.part import LOAD_STAGES, SAVE_STAGES
from trainctl.core.records.spec import CheckpointKeepSpec, CheckpointSpec, JobSpec
from trainctl.core.records.step import Phase, StepFigures

pytestmark = pytest.mark.multiproc


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, dict[int, StepFigures]]:
    """Final state and figures of a run without a fault."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with make(folder) as w:
        w.run()
        (state,) = final_states(folder, SIZE)
        return state, {f.step: f for f in w.figure_log}


def check_identical(w: ProcessWorld, folder: Path, undisturbed: tuple[bytes, dict[int, StepFigures]]) -> None:
    """Same bits, same samples, and only the lost workers were replaced."""
    state, figures = undisturbed
    assert final_states(folder, SIZE) == {state}
    found = {f.step: f for f in w.figure_log}
    assert sorted(found) == sorted(figures)
    for step, figure in figures.items():
        same = (found[step].loss, found[step].sample_digest, found[step].cursor)
        assert same == (figure.loss, figure.sample_digest, figure.cursor)
    lost = {life.slot for life in w.past}
    for life in w.lives.values():
        assert (life.incarnation <= SIZE) == (life.slot not in lost)


@pytest.mark.parametrize("slot", [0, 2])
@pytest.mark.parametrize(
    "point", ["step.compute", "step.reduce", "vote.before", "vote.in", "vote.after", "apply.in", "apply.after"]
)
def test_a_kill_at_a_fault_point_changes_no_bit(
    tmp_path: Path, undisturbed: tuple[bytes, dict[int, StepFigures]], point: str, slot: int
) -> None:
    with make(tmp_path, fault(point, slot=slot, step=5)) as w:
        w.run()
        assert [life.slot for life in w.past] == [slot]
        check_identical(w, tmp_path, undisturbed)
        assert {r.generation for life in w.lives.values() for r in life.recoveries} >= {2}
        (joined,) = [r for r in w.lives[slot].recoveries if r.generation == 2]
        holders = w.records[1].holders
        assert set(joined.received_bytes) <= {f"rank {rank}" for rank in holders}
        assert len(holders) == 2


@pytest.mark.parametrize(
    "second",
    [
        fault("restore.send", slot=1),
        fault("restore.receive", slot=0, generation=2),
        fault("rebuild.in", slot=2, generation=2),
        fault("vote.before", slot=1, generation=2),
    ],
    ids=lambda f: str(f["point"]),
)
def test_a_second_kill_during_recovery_changes_no_bit(
    tmp_path: Path, undisturbed: tuple[bytes, dict[int, StepFigures]], second: dict[str, Any]
) -> None:
    with make(tmp_path, fault("vote.after", slot=0, step=6), second) as w:
        w.run()
        assert len(w.past) == 2
        check_identical(w, tmp_path, undisturbed)


def test_an_outcome_that_only_a_survivor_saw_is_applied_by_all(
    tmp_path: Path, undisturbed: tuple[bytes, dict[int, StepFigures]]
) -> None:
    # Rank 1 saw the outcome; rank 0 dies before it applied; the record makes everybody finish step 4.
    with make(tmp_path, fault("vote.after", slot=0, step=4)) as w:
        w.run()
        check_identical(w, tmp_path, undisturbed)
        assert w.records[1].target_step == 4
        assert 0 not in w.records[1].holders


def test_two_at_once(tmp_path: Path, undisturbed: tuple[bytes, dict[int, StepFigures]]) -> None:
    with make(tmp_path, fault("vote.before", slot=0, step=7), fault("vote.before", slot=1, step=7)) as w:
        w.run()
        check_identical(w, tmp_path, undisturbed)


@pytest.mark.parametrize("seed", range(3))
def test_kills_at_random_moments(tmp_path: Path, undisturbed: tuple[bytes, dict[int, StepFigures]], seed: int) -> None:
    chance = random.Random(seed)
    with make(tmp_path) as w:
        w.propose(range(SIZE))
        for step in (3, 8):
            w.until(partial(reached, w, step))
            until = time.monotonic() + chance.random() * 0.03
            while time.monotonic() < until:  # somewhere inside a step
                pass
            w.lives[chance.randrange(SIZE)].kill()
        w.until(lambda: all(life.finished for life in w.members()))
        w.stop()
        check_identical(w, tmp_path, undisturbed)


def test_a_frozen_worker_that_wakes_up_later_changes_nothing(
    tmp_path: Path, undisturbed: tuple[bytes, dict[int, StepFigures]]
) -> None:
    with make(tmp_path, fault("step.reduce", "stop", slot=1, step=5)) as w:
        w.propose(range(SIZE))
        frozen = w.lives[1]
        w.until(lambda: frozen.progress().alive_age_s > 1.0 and frozen.progress().phase is Phase.REDUCE)
        w.exclude([1])  # it lives on; nobody confirmed its death
        w.until(partial(reached, w, 7))
        assert frozen.alive
        os.kill(frozen.pid, signal.SIGCONT)
        w.until(lambda: frozen.progress().alive_age_s < 0.5)
        w.until(lambda: all(life.finished for life in w.members()))
        w.stop()
        check_identical(w, tmp_path, undisturbed)
        assert frozen.alive
        assert not frozen.finished


def test_shrink_and_grow_keep_the_global_batch(
    tmp_path: Path, undisturbed: tuple[bytes, dict[int, StepFigures]]
) -> None:
    _, figures = undisturbed
    with make(tmp_path, fault("vote.in", slot=1, step=4)) as w:
        w.replace_lost = False
        w.propose(range(SIZE))
        w.until(partial(reached, w, 7))
        assert sorted(w.lives) == [0, 2]
        w.grow(1)
        w.until(lambda: all(life.finished for life in w.members()))
        w.stop()
        assert len(final_states(tmp_path, SIZE)) == 1
        assert w.record is not None
        assert w.record.world_size == SIZE
        for figure in w.figure_log:
            assert figure.loss == pytest.approx(figures[figure.step].loss, rel=1e-5)
            assert figure.sample_digest == figures[figure.step].sample_digest


def test_all_at_once_go_back_to_the_checkpoint(
    tmp_path: Path, undisturbed: tuple[bytes, dict[int, StepFigures]]
) -> None:
    spec = JobSpec(checkpoint=CheckpointSpec(interval_steps=4, background=False))
    with make(tmp_path, *[fault("vote.before", slot=slot, step=7) for slot in range(SIZE)], spec=spec) as w:
        w.run()
        assert [record.rung for record in w.records] == [Rung.START, Rung.CHECKPOINT]
        assert w.records[1].target_step == 4
        assert final_states(tmp_path, SIZE) == {undisturbed[0]}
        assert [(c.lineage, c.step, c.error) for c in w.checkpoints] == [(1, 4, ""), (2, 8, ""), (2, 12, "")]
        for checkpoint in w.checkpoints:
            assert [part.rank for part in checkpoint.parts] == list(range(SIZE))
            assert all(set(part.seconds) == set(SAVE_STAGES) for part in checkpoint.parts)
        (load,) = [r.load for life in w.lives.values() for r in life.recoveries if r.load is not None]
        assert load.step == 4
        assert [part.rank for part in load.parts] == list(range(SIZE)), "rank 0 tells for all"
        assert sum(part.moved_bytes for part in load.parts) == load.parts[0].data_bytes > 0, "each byte was read once"
        assert all(set(part.seconds) == set(LOAD_STAGES) - {"fetch"} for part in load.parts)
        assert load.seconds > 0
        assert load.bottleneck


def test_all_at_once_without_a_checkpoint_start_again(
    tmp_path: Path, undisturbed: tuple[bytes, dict[int, StepFigures]]
) -> None:
    with make(tmp_path, *[fault("vote.before", slot=slot, step=3) for slot in range(SIZE)]) as w:
        w.run()
        assert [record.lineage for record in w.records] == [1, 2]
        assert final_states(tmp_path, SIZE) == {undisturbed[0]}


@pytest.mark.parametrize("point", ["rebuild.in", "restore.send"])
def test_joiners_whose_sources_die_start_again_themselves(
    tmp_path: Path, undisturbed: tuple[bytes, dict[int, StepFigures]], point: str
) -> None:
    # Rank 2 joins; while it waits for the state, or has a part of it, both holders die; nothing was saved yet.
    second = [fault(point, slot=slot, generation=2) for slot in (0, 1)]
    with make(tmp_path, fault("vote.before", slot=2, step=3), *second) as w:
        w.run()
        assert [record.lineage for record in w.records][-1] == 2
        assert w.records[-1].rung is Rung.START
        joiner = w.lives[2]
        assert joiner.incarnation == SIZE + 1  # it lives on
        assert final_states(tmp_path, SIZE) == {undisturbed[0]}


def test_a_joiner_that_received_a_part_gets_the_initial_state_from_a_new_worker(
    tmp_path: Path, undisturbed: tuple[bytes, dict[int, StepFigures]]
) -> None:
    # Rank 1 freezes before it sends its part, rank 0 has sent its own; then both are lost.
    with make(tmp_path, fault("vote.before", slot=2, step=3), fault("restore.send", "stop", slot=1)) as w:
        w.propose(range(SIZE))
        w.until(lambda: len(w.records) == 2 and w.lives[1].progress().alive_age_s > 1.0)
        joiner = w.lives[2]
        assert joiner.progress().phase is Phase.RESTORE
        w.lives[0].kill()
        w.lives[1].kill()
        w.until(lambda: all(life.finished for life in w.members()))
        w.stop()
        assert (w.records[2].rung, w.records[2].lineage, w.records[2].holders) == (Rung.START, 2, (0, 1))
        assert w.lives[2] is joiner
        assert final_states(tmp_path, SIZE) == {undisturbed[0]}
        (started,) = [r for r in joiner.recoveries if r.generation == w.records[2].generation]
        assert set(started.received_bytes) == {"rank 0", "rank 1"}


@pytest.mark.parametrize("slot", [0, 1])
def test_a_full_disk_costs_the_checkpoint_not_the_training(
    tmp_path: Path, undisturbed: tuple[bytes, dict[int, StepFigures]], slot: int
) -> None:
    spec = JobSpec(checkpoint=CheckpointSpec(interval_steps=4))
    with make(tmp_path, fault("checkpoint.write", "enospc"), spec=spec) as w:
        w.run()
        assert len(w.records) == 1
        assert final_states(tmp_path, SIZE) == {undisturbed[0]}
        assert [(c.step, c.ref is not None) for c in w.checkpoints] == [(4, False), (8, True), (12, True)]
        assert "no space left" in w.checkpoints[0].error.lower()


@pytest.mark.parametrize("point", ["checkpoint.write", "checkpoint.seal", "checkpoint.sealed"])
def test_a_kill_while_saving(tmp_path: Path, undisturbed: tuple[bytes, dict[int, StepFigures]], point: str) -> None:
    spec = JobSpec(checkpoint=CheckpointSpec(interval_steps=6, background=False))
    with make(tmp_path, fault(point), spec=spec) as w:
        w.run()
        check_identical(w, tmp_path, undisturbed)
        assert w.records[1].target_step == 6
        assert [c.step for c in w.checkpoints if c.ref] == [6, 12]


@pytest.mark.parametrize(
    ("point", "rank"),
    [("checkpoint.write", 0), ("checkpoint.write", 1), ("checkpoint.seal", 0), ("checkpoint.sealed", 0)],
)
def test_a_kill_while_saving_in_the_background(
    tmp_path: Path, undisturbed: tuple[bytes, dict[int, StepFigures]], point: str, rank: int
) -> None:
    spec = JobSpec(checkpoint=CheckpointSpec(interval_steps=2))
    with make(tmp_path, fault(point, rank=rank), spec=spec) as w:
        w.run()
        check_identical(w, tmp_path, undisturbed)
        assert len(w.past) == 1
        assert w.checkpoints[-1].step == STEPS
        assert [c.error for c in w.checkpoints if c.ref is None] == []
        (newest, *_) = survey(str(tmp_path / "checkpoints")).checkpoints
        assert newest.ref == w.checkpoints[-1].ref


def test_what_one_rank_has_no_memory_for_all_wait_for_newcomers_too(
    tmp_path: Path, undisturbed: tuple[bytes, dict[int, StepFigures]]
) -> None:
    spec = JobSpec(checkpoint=CheckpointSpec(interval_steps=2))
    with make(tmp_path, fault("vote.before", slot=0, step=7), spec=spec, poor_slots=[1]) as w:
        w.run()
        check_identical(w, tmp_path, undisturbed)
        assert [c.step for c in w.checkpoints if c.ref][-2:] == [10, 12]
        for failed in (c for c in w.checkpoints if c.ref is None):
            assert "rank 1: no host memory for a copy of the state: cannot allocate" in failed.error
        assert w.checkpoints[0].ref is None
        assert len(w.notices) == 1


@pytest.mark.parametrize(
    "killed",
    [
        fault("vote.before", slot=0, step=7),
        fault("checkpoint.write", rank=1, step=6),
        fault("checkpoint.sealed", rank=0, step=6),
    ],
    ids=lambda f: str(f["point"]),
)
def test_only_the_newest_checkpoints_stay_through_a_kill(tmp_path: Path, killed: dict[str, Any]) -> None:
    # Killed between two, while one is written, or after it was sealed and before older ones went.
    keep = CheckpointKeepSpec(last=2)
    spec = JobSpec(checkpoint=CheckpointSpec(interval_steps=2, keep=keep, background=False))
    with make(tmp_path, killed, spec=spec, steps=10, hidden=20) as w:
        w.run()
        assert len(w.past) == 1
        saved = [report.ref for report in w.checkpoints if report.ref is not None]
        assert [ref.step for ref in saved] == [2, 4, 6, 8, 10]
        folders = {path.parent.name + "/" + path.name for path in (tmp_path / "checkpoints").glob("*/*")}
        assert folders == {"/".join(ref.uri.split("/")[-2:]) for ref in saved[-2:]}
        assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {step_folder(8), step_folder(10)}
        assert [info.ref for info in survey(str(tmp_path / "checkpoints")).checkpoints] == saved[:-3:-1]


def test_all_stop_after_the_same_step_and_save(tmp_path: Path) -> None:
    with make(tmp_path, steps=10_000, spec=JobSpec(checkpoint=CheckpointSpec(interval_steps=0))) as w:
        w.propose(range(SIZE))
        w.until(partial(reached, w, 5))
        w.stop(save=True)
        assert len(final_states(tmp_path, SIZE)) == 1
        (checkpoint,) = w.checkpoints
        assert checkpoint.ref is not None
        assert checkpoint.step == w.figure_log[-1].step


def test_evaluation_and_user_objects_survive(tmp_path: Path) -> None:
    with make(tmp_path, fault("vote.after", slot=0, step=6), evaluate_every=3) as w:
        w.run()
        assert {f.step for f in w.figure_log if f.eval_loss is not None} == {3, 6, 9, 12}
