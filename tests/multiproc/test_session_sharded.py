"""A model that shards itself: the same losses whatever the number of ranks, and on after a loss from a checkpoint.

Without it models larger than a device could train wrongly, or not come back.
"""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path

import pytest

from multiproc.sharded_world import STEPS, check, make, run, surviving
from multiproc.toy_world import reached
from trainctl.core.records.generation import Rung

pytestmark = pytest.mark.multiproc


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-10)])
def test_the_losses_do_not_depend_on_the_number_of_ranks(tmp_path: Path, dtype: str, tolerance: float) -> None:
    alone = run(tmp_path / "1", 1, dtype=dtype, micro_batches=6)
    assert sorted(alone) == list(range(1, STEPS + 1))
    for size in (2, 3, 4):  # 6 micro-batches over 4 ranks: two of them have an idle turn
        found = run(tmp_path / str(size), size, dtype=dtype, micro_batches=6)
        for step, figure in alone.items():
            assert found[step].loss == pytest.approx(figure.loss, rel=tolerance)
            assert found[step].gradient_norm == pytest.approx(figure.gradient_norm, rel=10 * tolerance)
            assert found[step].sample_digest == figure.sample_digest
            assert (figure.eval_loss is None) == bool(step % 4)
            if figure.eval_loss is not None:
                assert found[step].eval_loss == pytest.approx(figure.eval_loss, rel=tolerance)


def test_more_ranks_than_micro_batches(tmp_path: Path) -> None:
    alone, found = run(tmp_path / "1", 1, micro_batches=2), run(tmp_path / "3", 3, micro_batches=2)
    assert [found[step].loss for step in alone] == pytest.approx([f.loss for f in alone.values()], rel=1e-5)


@pytest.mark.parametrize(("slot", "layout"), [(0, "chunked"), (1, "hf"), (3, "chunked")])
def test_a_lost_rank_sends_all_back_to_the_checkpoint(tmp_path: Path, slot: int, layout: str) -> None:
    undisturbed = run(tmp_path / "undisturbed", 4)
    with make(tmp_path / "lost", 4, layout=layout) as w:
        pids = {life.slot: life.pid for life in w.lives.values()}
        w.propose(range(4))
        w.until(partial(reached, w, 6))
        w.lives[slot].kill()
        w.until(lambda: all(life.finished for life in w.members()))
        w.stop()
        assert {s for s, pid in pids.items() if w.lives[s].pid != pid} == {slot}
        assert w.records[-1].rung is Rung.CHECKPOINT
        assert w.records[-1].target_step in (4, 8)
        check(surviving(w), undisturbed)


def test_back_to_what_was_saved_in_the_background(tmp_path: Path) -> None:
    undisturbed = run(tmp_path / "undisturbed", 3, steps=40)
    with make(tmp_path / "lost", 3, background=True, steps=40) as w:
        w.propose(range(3))
        w.until(lambda: bool(w.checkpoints))
        w.lives[1].kill()
        w.until(lambda: all(life.finished for life in w.members()))
        w.stop()
        assert not any(report.error for report in w.checkpoints)
        assert w.records[-1].rung is Rung.CHECKPOINT
        assert w.checkpoints[-1].step == 40
        check(surviving(w), undisturbed)


def test_a_frozen_rank_does_not_hold_the_others(tmp_path: Path) -> None:
    undisturbed = run(tmp_path / "undisturbed", 3)
    with make(tmp_path / "frozen", 3) as w:
        w.propose(range(3))
        w.until(partial(reached, w, 5))
        frozen = w.lives[1]
        frozen_pid = frozen.pid
        os.kill(frozen_pid, signal.SIGSTOP)
        w.exclude([1])  # as a controller does that takes it for lost; it is not even killed
        w.until(lambda: all(life.finished for life in w.members()))
        w.stop()
        os.kill(frozen_pid, signal.SIGKILL)
        check(surviving(w), undisturbed)


def test_on_fewer_ranks_and_on_more_again(tmp_path: Path) -> None:
    undisturbed = run(tmp_path / "undisturbed", 3)
    with make(tmp_path / "elastic", 3) as w:
        w.replace_lost = False
        w.propose(range(3))
        w.until(partial(reached, w, 5))
        w.lives[0].kill()
        w.until(partial(reached, w, 9))
        w.grow(0)
        w.until(lambda: all(life.finished for life in w.members()))
        w.stop()
        assert [len(record.members) for record in w.records] == [3, 2, 3]
        check(surviving(w), undisturbed)
