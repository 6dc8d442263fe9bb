"""Members that are held wait at one step boundary, all at the same; whatever follows, no step is open or repeated.

Without it pausing a job could cost a step, or leave ranks waiting for each other.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from multiproc.toy import final_states
from multiproc.toy_world import OPTIONS, SIZE, STEPS, make, reached
from trainctl.core.records.generation import Rung
from trainctl.core.records.step import Phase, StepFigures

pytestmark = pytest.mark.multiproc


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, list[StepFigures]]:
    folder = tmp_path_factory.mktemp("undisturbed")
    with make(folder) as w:
        w.run()
        (state,) = final_states(folder, SIZE)
        return state, w.figure_log


def to_the_end(folder: Path, undisturbed: tuple[bytes, list[StepFigures]], log: list[StepFigures]) -> None:
    state, figures = undisturbed
    assert final_states(folder, SIZE) == {state}
    assert [f.step for f in log] == list(range(1, STEPS + 1)), "each step was committed once"
    assert [(f.loss, f.sample_digest) for f in log] == [(f.loss, f.sample_digest) for f in figures]


@pytest.mark.parametrize("seed", range(3))
def test_a_held_generation_goes_on_in_the_next_one(
    tmp_path: Path, undisturbed: tuple[bytes, list[StepFigures]], seed: int
) -> None:
    with make(tmp_path) as w:
        w.propose(range(SIZE))
        w.until(lambda: reached(w, random.Random(seed).randint(1, STEPS - 4)))
        step = w.hold()
        w.propose(range(SIZE))
        w.until(lambda: all(life.finished for life in w.members()))
        w.stop()
        record = w.records[-1]
        assert (record.generation, record.target_step, record.holders) == (2, step, (0, 1, 2))
        open_steps = {report.retained_step for life in w.members() if (report := life.report) is not None}
        assert open_steps == {0}, "nobody had a step to finish"
        assert not w.past
        to_the_end(tmp_path, undisturbed, w.figure_log)


def test_a_held_generation_is_saved_before_it_waits_and_then_stops(tmp_path: Path) -> None:
    with make(tmp_path) as w:
        w.propose(range(SIZE))
        w.until(lambda: reached(w, 2))
        step = w.hold(save=True)
        w.until(lambda: bool(w.checkpoints))
        assert [report.step for report in w.checkpoints] == [step]
        assert not w.checkpoints[0].error
        assert max(f.step for f in w.figure_log) == step < OPTIONS["steps"]
        w.stop()
        assert not any(life.alive for life in w.lives.values())
        assert [report.step for report in w.checkpoints] == [step], "the stop saves nothing again"


def test_who_dies_while_held_is_replaced_from_the_others(
    tmp_path: Path, undisturbed: tuple[bytes, list[StepFigures]]
) -> None:
    with make(tmp_path) as w:
        w.propose(range(SIZE))
        w.until(lambda: reached(w, 3))
        step = w.hold()
        victim = w.lives[1]
        survivors = [life for life in w.members() if life is not victim]
        victim.kill()
        w.until(lambda: not victim.alive)
        assert {life.progress().phase for life in survivors} <= {
            Phase.HELD,
            Phase.INTERRUPTED,
            Phase.REBUILD,
        }
        w.until(lambda: all(life.finished for life in w.members()))
        w.stop()
        assert (w.records[-1].rung, w.records[-1].target_step) == (Rung.PEER, step)
        assert [life.slot for life in w.past] == [1]
        to_the_end(tmp_path, undisturbed, w.figure_log)
