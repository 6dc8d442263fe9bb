"""Snapshots by time: ranks hear of the interval at different moments, and make snapshots of the same steps.

Without it ranks could keep snapshots of different steps, which together are none.
"""

from __future__ import annotations

import os
import random
import signal
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from multiproc.armed_faults import fault
from multiproc.snapshot_worlds import ALWAYS_S, NEVER_S
from multiproc.toy import final_states, train
from multiproc.toy_world import SIZE, reached
from multiproc.world import ProcessWorld
from trainctl.core.records.generation import Rung
from trainctl.core.records.spec import CheckpointSpec, JobSpec, SnapshotsSpec

pytestmark = pytest.mark.multiproc

EVERYBODY = range(SIZE)


def make(folder: Path, *faults: dict[str, Any], interval_steps: int = 0, steps: int = 300) -> ProcessWorld:
    """Each rank is alone on its node, so that each tells of every snapshot."""
    snapshots = SnapshotsSpec(interval_steps=interval_steps, interval="auto")
    spec = JobSpec(checkpoint=CheckpointSpec(interval_steps=0, snapshots=snapshots))
    options = {"steps": steps, "hidden": 20}
    return ProcessWorld(folder, SIZE, train, options=options, spec=spec, faults=faults, nodes=["a", "b", "c"])


def finish(w: ProcessWorld) -> None:
    w.until(lambda: all(life.finished for life in w.members()))
    w.stop()


def taken(w: ProcessWorld, folder: Path) -> dict[int, list[int]]:
    """Steps of the snapshots by generation: the same on all ranks, but of those that left one early, not all."""
    told: dict[int, dict[int, list[int]]] = defaultdict(lambda: {slot: [] for slot in EVERYBODY})
    for slot, made in w.snapshot_log:
        assert made.error == ""
        assert made.newest is not None
        assert 0.0 < made.stall_s <= made.seconds
        told[made.generation][slot].append(made.newest.snapshot.step)
    steps = {generation: max(by_slot.values(), key=len) for generation, by_slot in told.items()}
    for generation, by_slot in told.items():
        last = generation == w.generation
        for found in by_slot.values():
            assert found == steps[generation][: None if last else len(found)]
        assert steps[generation] == sorted(set(steps[generation]))
    assert w.notices == []
    assert len(final_states(folder, SIZE)) == 1
    return steps


def count(w: ProcessWorld) -> int:
    """Snapshots that every rank told of."""
    return min(w.snapshots[slot].made if slot in w.snapshots else 0 for slot in EVERYBODY)


def test_an_interval_that_changes_on_the_way_is_followed_by_all_ranks_at_the_same_steps(tmp_path: Path) -> None:
    with make(tmp_path) as w:
        w.snapshot_every(dict.fromkeys(EVERYBODY, NEVER_S))
        w.propose(EVERYBODY)
        w.until(lambda: reached(w, 20))
        assert not w.snapshot_log
        w.snapshot_every({**dict.fromkeys(EVERYBODY, NEVER_S), 1: ALWAYS_S})  # the others hear of it later
        w.until(lambda: count(w) >= 3)
        w.snapshot_every(dict.fromkeys(EVERYBODY, NEVER_S))
        until = max(f.step for f in w.figure_log) + 50
        w.until(lambda: reached(w, until))
        before = count(w)
        finish(w)
        steps = taken(w, tmp_path)
        assert len(steps[1]) == count(w) == before, "no more since nobody's time is over"


def test_as_long_as_one_rank_was_not_told_there_are_none_or_steps_count(tmp_path: Path) -> None:
    for interval_steps, some in ((0, False), (5, True)):
        folder = tmp_path / str(interval_steps)
        folder.mkdir()
        with make(folder, interval_steps=interval_steps, steps=40) as w:
            w.snapshot_every({0: ALWAYS_S, 1: ALWAYS_S})
            w.propose(EVERYBODY)
            finish(w)
            steps = taken(w, folder)
            assert bool(steps) is some
            assert all(step >= 5 for step in steps.get(1, ()))


def test_who_is_frozen_while_it_is_told_delays_all_and_parts_nobody(tmp_path: Path) -> None:
    with make(tmp_path) as w:
        w.snapshot_every(dict.fromkeys(EVERYBODY, NEVER_S))
        w.propose(EVERYBODY)
        w.until(lambda: reached(w, 5))
        frozen = w.lives[2]
        os.kill(frozen.pid, signal.SIGSTOP)
        w.snapshot_every(dict.fromkeys(EVERYBODY, ALWAYS_S))
        w.snapshot_every({0: ALWAYS_S, 1: NEVER_S, 2: NEVER_S})
        os.kill(frozen.pid, signal.SIGCONT)
        w.until(lambda: count(w) >= 2)
        w.snapshot_every(dict.fromkeys(EVERYBODY, NEVER_S))
        finish(w)
        assert list(taken(w, tmp_path)) == [1]


@pytest.mark.parametrize("slot", [0, 2])
def test_whatever_ranks_are_told_and_whoever_dies_they_stay_together(tmp_path: Path, slot: int) -> None:
    """Told nothing stands for an older controller, or one that does not know the job's interval yet."""
    chance = random.Random(slot)
    with make(tmp_path, fault("vote.after", slot=slot, step=30), steps=150) as w:
        w.propose(EVERYBODY)
        for step in range(1, 60):
            w.until(lambda step=step: reached(w, step))  # type: ignore[misc]
            w.snapshot_every({one: chance.choice((0.0, ALWAYS_S, ALWAYS_S, ALWAYS_S, NEVER_S)) for one in EVERYBODY})
        w.snapshot_every(dict.fromkeys(EVERYBODY, ALWAYS_S))  # now and then one was complete before, if not for sure
        w.until(lambda: count(w) >= 2)
        finish(w)
        assert [life.slot for life in w.past] == [slot]
        assert sum(len(steps) for steps in taken(w, tmp_path).values()) > 1


def test_who_comes_for_a_lost_rank_has_a_copy_soon_however_long_the_interval(tmp_path: Path) -> None:
    """A peer had the state, and the memory of the new node has nothing: the next loss may be of all."""
    with make(tmp_path) as w:
        w.snapshot_every(dict.fromkeys(EVERYBODY, NEVER_S))
        w.propose(EVERYBODY)
        w.until(lambda: reached(w, 20))
        assert not w.snapshot_log
        w.lives[1].kill()
        w.until(lambda: count(w) == 1)
        assert {made.generation for _, made in w.snapshot_log} == {2}
        (step,) = {made.newest.snapshot.step for _, made in w.snapshot_log if made.newest is not None}
        assert (w.records[1].rung, step) == (Rung.PEER, w.records[1].target_step + 1)
        for life in w.members():
            life.kill()
        w.until(lambda: len(w.records) == 3)
        assert (w.records[2].rung, w.records[2].target_step) == (Rung.SNAPSHOT, step)
        finish(w)
        steps = taken(w, tmp_path)
        assert steps[w.generation][:1] == [step + 1], "and those who came for all, too"
