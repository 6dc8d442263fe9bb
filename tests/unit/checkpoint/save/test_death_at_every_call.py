"""A save ends before each single call to the system that it makes, as if its process died; what was there loads.

Without it a crash between two calls could cost the only checkpoint.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainctl.checkpoint.engine import load
from trainctl.checkpoint.kept.catalog import newest
from trainctl.checkpoint.layout.layout import rank_holder
from trainctl.core.records.generation import CheckpointRef
from unit.checkpoint.ranks import at_step, attempt, full_values, plain, rank_state, same_bits, save

CALLS = ("open", "pwritev", "fsync", "link", "unlink", "rmdir", "mkdir", "close", "scandir")


class Death(BaseException):
    """Nothing that runs afterwards changes anything, cleaning up included."""


def save_and_die(patch: pytest.MonkeyPatch, folder: Path, parent: CheckpointRef, last_call: int, files: str) -> bool:
    """Saves step 2; whether it came to its end before the call after ``last_call``."""
    made = 0

    def counted(plainly: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal made
            made += 1
            if made > last_call:
                raise Death
            return plainly(*arguments, **options)

        return call

    with patch.context() as patched:
        for name in CALLS:
            patched.setattr(os, name, counted(getattr(os, name)))
        try:
            save(folder, at_step(full_values(), 2), of=attempt(2, nonce=str(last_call)), parent=parent, files=files)
        except Death:
            return False
    return True


@pytest.mark.parametrize("files", ["chunked", "hf"])
def test_the_newest_whole_checkpoint_loads_wherever_a_save_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: str
) -> None:
    first = save(tmp_path, at_step(full_values(), 1), of=attempt(1))
    found_steps: list[int] = []
    done = False
    while not done:
        done = save_and_die(monkeypatch, tmp_path, first, len(found_steps), files)
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
