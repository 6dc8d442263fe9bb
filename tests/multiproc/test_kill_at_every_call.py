"""A process that saves is killed before each single call to the system that a save makes; what was there loads."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from trainctl.checkpoint.catalog import newest
from trainctl.checkpoint.engine import load
from trainctl.checkpoint.layout.layout import rank_holder
from trainctl.core.records.generation import CheckpointRef
from unit.checkpoint.ranks import at_step, attempt, full_values, plain, rank_state, same_bits, save

pytestmark = [pytest.mark.multiproc, pytest.mark.timeout(120)]
CALLS = ("open", "pwritev", "fsync", "link", "unlink", "mkdir", "close")
DEADLINE_S = 30.0


def save_and_die(folder: str, step: int, parent: CheckpointRef | None, kill_at: int) -> None:
    """Saves; is killed before the ``kill_at``-th call."""
    made = 0

    def counted(plainly: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal made
            made += 1
            if made == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return plainly(*arguments, **options)

        return call

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))
    save(Path(folder), at_step(full_values(), step), of=attempt(step, nonce=str(kill_at)), parent=parent)


def deaths(folder: Path, parent: CheckpointRef) -> Iterator[bool]:
    """Whether each next try ended by itself; every try is killed one call later."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "unit.checkpoint.ranks"])
    kill_at, done = 1, False
    while not done:
        process = context.Process(target=save_and_die, args=(str(folder), 2, parent, kill_at))
        process.start()
        process.join(DEADLINE_S)
        assert process.exitcode in (0, -signal.SIGKILL), process.exitcode
        done = process.exitcode == 0
        kill_at += 1
        yield done


def test_the_newest_whole_checkpoint_loads_wherever_a_save_is_killed(tmp_path: Path) -> None:
    first = save(tmp_path, at_step(full_values(), 1), of=attempt(1))
    found_steps = []
    for _ in deaths(tmp_path, first):
        ref = newest(str(tmp_path))
        assert ref is not None
        values = at_step(full_values(), ref.step)
        state = rank_state(values, plain(values, 1), rank_holder(0), blank=True)
        load(ref, state)
        assert all(same_bits(held.tensor, values[held.key]) for held in state.tensors)
        found_steps.append(ref.step)
    assert found_steps == sorted(found_steps), "a checkpoint that was complete stays"
    assert set(found_steps) == {1, 2}
    assert found_steps.count(1) > 20, "a save of two ranks makes more calls than that before its seal"
