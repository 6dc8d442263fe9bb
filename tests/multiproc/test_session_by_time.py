"""Saves by time: ranks hear of the interval at different moments, measure by themselves, and save the same steps.

Without it ranks could save different steps, and no checkpoint be whole.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from multiproc.armed_faults import fault
from multiproc.toy import final_states
from multiproc.toy_world import SIZE, make, reached
from multiproc.world import ProcessWorld
from trainctl.checkpoint.kept.catalog import survey
from trainctl.core.records.spec import CheckpointKeepSpec, CheckpointSpec, JobSpec

pytestmark = pytest.mark.multiproc

NEVER_S, ALWAYS_S = 1e9, 1e-9
EVERYBODY = range(SIZE)
SPEC = JobSpec(checkpoint=CheckpointSpec(interval_steps=4, interval="auto", keep=CheckpointKeepSpec(last=99)))


def saved_steps(w: ProcessWorld, folder: Path) -> list[int]:
    """Every save came to a good end, and is there; a rank that died may have had no time to tell of one."""
    assert [report.error for report in w.checkpoints if report.ref is None] == []
    refs = [report.ref for report in w.checkpoints if report.ref is not None]
    there = [info.ref for info in survey(str(folder / "checkpoints")).checkpoints]
    assert [ref for ref in there if ref in refs or not w.past] == refs[::-1]
    return [ref.step for ref in refs]


def test_an_interval_that_changes_on_the_way_is_followed_by_all_ranks_at_the_same_steps(tmp_path: Path) -> None:
    with make(tmp_path, spec=SPEC, steps=100_000, hidden=20) as w:
        w.save_every(dict.fromkeys(EVERYBODY, NEVER_S))
        w.propose(EVERYBODY)
        w.until(lambda: reached(w, 20))
        assert not w.checkpoints, "nobody counts steps"
        w.save_every({**dict.fromkeys(EVERYBODY, NEVER_S), 1: ALWAYS_S})  # the others hear of it later
        w.until(lambda: len(w.checkpoints) >= 2)
        w.save_every(dict.fromkeys(EVERYBODY, NEVER_S))
        w.stop(save=True)
        steps = saved_steps(w, tmp_path)
        assert steps == sorted(set(steps))
        assert steps[0] > 1
        assert len(final_states(tmp_path, SIZE)) == 1


def test_as_long_as_one_rank_was_not_told_all_count_steps(tmp_path: Path) -> None:
    with make(tmp_path, spec=SPEC) as w:
        w.save_every({0: ALWAYS_S, 1: ALWAYS_S})
        w.run()
        assert saved_steps(w, tmp_path) == [4, 8, 12]


def test_with_an_interval_that_is_always_over_every_step_is_saved(tmp_path: Path) -> None:
    with make(tmp_path, spec=SPEC) as w:
        w.save_every(dict.fromkeys(EVERYBODY, ALWAYS_S))
        w.run()
        assert saved_steps(w, tmp_path) == list(range(1, 13))


@pytest.mark.parametrize("slot", [0, 2])
def test_whatever_ranks_are_told_and_whoever_dies_they_stay_together(tmp_path: Path, slot: int) -> None:
    chance = random.Random(slot)
    with make(tmp_path, fault("vote.after", slot=slot, step=30), spec=SPEC, steps=60, hidden=20) as w:
        w.propose(EVERYBODY)
        for step in range(1, 60):
            w.until(lambda step=step: reached(w, step))  # type: ignore[misc]
            w.save_every({one: chance.choice((0.0, ALWAYS_S, ALWAYS_S, NEVER_S)) for one in EVERYBODY})
        w.until(lambda: all(life.finished for life in w.members()))
        w.stop()
        assert [life.slot for life in w.past] == [slot]
        steps = saved_steps(w, tmp_path)
        assert steps[-1] == 60
        assert steps == sorted(set(steps))
        assert len(final_states(tmp_path, SIZE)) == 1
