"""What becomes of a checkpoint that is complete when whoever wanted to complete it hears otherwise.

Without it who comes second, or never gets the storage's answer, could remove the checkpoint that the first completed.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from trainctl.checkpoint.engine import CheckpointWriter
from trainctl.checkpoint.kept.catalog import inspect, newest
from trainctl.checkpoint.layout.layout import rank_holder
from trainctl.checkpoint.library import save_state
from trainctl.checkpoint.live.state import LocalState
from trainctl.checkpoint.manifest.codec import dump_root, parse_root
from trainctl.checkpoint.manifest.names import ROOT_MANIFEST
from trainctl.checkpoint.storage.local import LocalStorage
from trainctl.core.errors import CheckpointError, FencedError, TrainctlError
from trainctl.core.records.generation import CheckpointRef
from trainctl.core.system.faults import FaultPlan
from unit.checkpoint.completing import VALUES
from unit.checkpoint.ranks import at_step, attempt, plain, rank_state, save_parts

Create = Callable[[LocalStorage, str, bytes], None]


def state_at(step: int) -> LocalState:
    values = at_step(VALUES, step)
    return rank_state(values, plain(values, 1), rank_holder(0))


def sealed(uri: Path, step: int) -> CheckpointRef:
    writer, values = CheckpointWriter(str(uri), faults=FaultPlan()), at_step(VALUES, step)
    parts = save_parts(writer, values, plain(values, 2), attempt(step))
    return writer.seal(attempt(step), state=state_at(step), parts=parts, parent=None)


def answer_of_sealing(monkeypatch: pytest.MonkeyPatch, answered: Callable[[Create], Create]) -> None:
    """The storage does something else when a root manifest is created."""
    plainly = LocalStorage.create_file
    otherwise = answered(plainly)

    def create_file(self: LocalStorage, path: str, data: bytes) -> None:
        (otherwise if path.endswith(ROOT_MANIFEST) else plainly)(self, path, data)

    monkeypatch.setattr(LocalStorage, "create_file", create_file)


def twice(plainly: Create) -> Create:
    """Asks again, as a client of a file server does that gets no answer."""

    def create(self: LocalStorage, path: str, data: bytes) -> None:
        plainly(self, path, data)
        plainly(self, path, data)

    return create


def unanswered(plainly: Create) -> Create:
    def create(self: LocalStorage, path: str, data: bytes) -> None:
        plainly(self, path, data)
        raise OSError(errno.EIO, "injected")

    return create


def outrun(plainly: Create) -> Create:
    """Another process, with another leader, is faster."""

    def create(self: LocalStorage, path: str, data: bytes) -> None:
        plainly(self, path, dump_root(replace(parse_root(data, where=path), epoch=7)))
        plainly(self, path, data)

    return create


def test_a_seal_whose_answer_was_lost_has_sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer_of_sealing(monkeypatch, twice)
    assert sealed(tmp_path, 3) == newest(str(tmp_path))


def test_what_is_complete_is_not_discarded(tmp_path: Path) -> None:
    ref = sealed(tmp_path, 3)
    CheckpointWriter(str(tmp_path), faults=FaultPlan()).discard(attempt(3))
    assert newest(str(tmp_path)) == ref


@pytest.mark.parametrize(("answered", "error", "epoch"), [(outrun, FencedError, 7), (unanswered, CheckpointError, 1)])
def test_the_library_leaves_a_checkpoint_that_is_complete_though_its_save_failed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    answered: Callable[[Create], Create],
    error: type[TrainctlError],
    epoch: int,
) -> None:
    answer_of_sealing(monkeypatch, answered)
    with pytest.raises(error):
        save_state(tmp_path, state_at(3), step=3)
    found = inspect(str(tmp_path))
    assert (found.ref.step, found.manifest.epoch, found.problem) == (3, epoch, "")
