"""Checkpoints that are saved while training goes on: of one step, whole or not at all, and not in the way for long.

Without it a checkpoint could hold weights of two steps, or saving stop training.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from trainctl.checkpoint.kept.catalog import survey
from trainctl.checkpoint.live.state import LocalState
from trainctl.checkpoint.monitor import STAGES
from trainctl.checkpoint.snapshot.host_pool import HostPool
from trainctl.checkpoint.snapshot.snapshot import Snapshot
from trainctl.core.records.part import PartTimes
from trainctl.core.records.worker import CheckpointReport
from trainctl.parallel.session import checkpoints as checkpoints_module
from trainctl.parallel.session import save_part as save_part_module
from trainctl.parallel.session import saves
from unit.session.saving_runs import Run, Storage, storage
from waiting import PATIENCE_S

__all__ = ["storage"]  # a fixture


def outcome(reports: Iterable[CheckpointReport]) -> list[tuple[int, bool]]:
    return [(report.step, report.ref is not None) for report in reports]


@pytest.mark.parametrize("in_background", [True, False])
def test_every_checkpoint_is_the_state_of_its_step(tmp_path: Path, in_background: bool) -> None:
    run = Run(tmp_path, steps=7, interval=2, background=in_background)
    reports = run.to_the_end()
    assert outcome(reports) == [(2, True), (4, True), (6, True), (7, True)]
    assert not run.control.notices
    parents = []
    for info in survey(str(tmp_path / "checkpoints")).checkpoints:
        run.check(info.ref)
        parents.append(info.manifest.parent.step if info.manifest.parent else None)
        (part,) = info.manifest.parts
        assert set(part.seconds) == set(STAGES)
        (report,) = [report for report in reports if report.ref == info.ref]
        assert part.seconds["stall"] <= round(report.stall_s, 6)
        assert report.stall_s <= report.seconds
        assert report.bottleneck
        assert report.cause == ""
        assert report.parts == (PartTimes(0, part.data_bytes, part.seconds),)
        assert 0.0 < report.seal_s <= report.seconds
        assert (report.pool_bytes > 0) == in_background
    assert parents == [6, 4, 2, None], "each continues the one before"


def test_training_goes_on_while_the_storage_is_slow_and_waits_when_too_much_is_on_its_way(
    tmp_path: Path, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    plainly, waits, waited_s = saves.Saves._advance_together, list[int](), list[float]()

    def advance_together(self: saves.Saves) -> None:
        began_s = time.monotonic()
        waits.append(len(self._saves))
        storage.open.set()
        plainly(self)
        waited_s.append(time.monotonic() - began_s)

    monkeypatch.setattr(saves.Saves, "_advance_together", advance_together)
    run = Run(tmp_path, steps=9, interval=2)
    storage.open.clear()
    for _ in range(5):  # those of steps 2 and 4 are on their way
        run.step()
    assert storage.waiting.wait(PATIENCE_S)
    assert (run.session.applied_step, run.control.reports, waits) == (5, [], [])
    run.step()
    assert set(waits) == {2}, "a third one would need memory: it is not begun before the first one is complete"
    stall_s = sum(waited_s)
    reports = run.to_the_end()
    assert outcome(reports) == [(2, True), (4, True), (6, True), (8, True), (9, True)]
    assert reports[2].stall_s >= stall_s > 0.0
    for report in reports:
        assert report.ref is not None
        run.check(report.ref)


def test_a_copy_that_is_late_is_dropped_and_the_next_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plainly = Snapshot._copy_tensor

    def slowly(snapshot: Snapshot, *what: Any) -> bool:
        if threading.current_thread() is not threading.main_thread():
            while snapshot._wanted:
                threading.Event().wait(0.001)
        threading.Event().wait(0.002)
        return plainly(snapshot, *what)

    monkeypatch.setattr(Snapshot, "_copy_tensor", slowly)
    monkeypatch.setattr(saves, "FENCE_S", 0.05)
    run = Run(tmp_path)
    reports = run.to_the_end()
    assert outcome(reports) == [(2, False), (4, True), (6, True)]
    assert "rank 0: the next change of the state was due, and 0.05 s later the copy was not whole" in reports[0].error
    assert reports[0].cause == "late_copy"
    seconds = reports[1].parts[0].seconds
    assert 0.002 <= seconds["copy"] <= seconds["stall"], "the copy is a stage also where training waits for it"
    (notice,) = run.control.notices
    assert "the copy for the checkpoint of step 2 is dropped" in notice
    assert "from now on training waits while the copy is made" in notice
    for report in reports[1:]:
        assert report.ref is not None
        run.check(report.ref)
    assert [info.ref for info in survey(str(tmp_path / "checkpoints")).checkpoints] == [reports[2].ref, reports[1].ref]
    assert not list((tmp_path / "checkpoints").glob("step-*2"))


def test_state_that_is_changed_inside_a_step_is_never_saved_torn(tmp_path: Path) -> None:
    run = Run(tmp_path)

    def meddle() -> None:
        with torch.no_grad():
            run.average.weight.add_(1.0)

    for _ in range(2):
        run.step()
    run.step(meddle)
    run.states.pop(3)
    reports = run.to_the_end()
    assert outcome(reports) == [(2, False), (4, True), (6, True)]
    assert "param of average.weight" in reports[0].error
    assert "was changed before the snapshot's fence was passed" in reports[0].error
    assert reports[0].cause == "changed_state"
    assert reports[1].ref is not None
    run.check(reports[1].ref)


def test_what_passes_is_tried_again(tmp_path: Path, storage: Storage) -> None:
    storage.errors = [errno.EIO, errno.EIO]
    run = Run(tmp_path)
    reports = run.to_the_end()
    assert outcome(reports) == [(2, True), (4, True), (6, True)]
    assert storage.tries == 5
    assert reports[0].ref is not None
    run.check(reports[0].ref)


@pytest.mark.parametrize(("errors", "tries"), [([errno.EIO] * 3, 5), ([errno.ENOSPC], 3)])
def test_what_does_not_pass_costs_one_checkpoint(
    tmp_path: Path, storage: Storage, errors: list[int], tries: int
) -> None:
    storage.errors = list(errors)
    run = Run(tmp_path)
    reports = run.to_the_end()
    assert outcome(reports) == [(2, False), (4, True), (6, True)]
    assert "injected" in reports[0].error
    assert reports[0].cause == "storage"
    assert storage.tries == tries
    assert not list((tmp_path / "checkpoints").glob("step-*2"))


def test_storage_that_hangs_ends_the_save_and_not_the_run(
    tmp_path: Path, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saves, "SILENCE_S", 0.2)
    run = Run(tmp_path, steps=3)
    storage.open.clear()
    try:
        reports = run.to_the_end()
    finally:
        storage.open.set()
    assert outcome(reports) == [(2, False), (3, False)]
    assert all("nothing was written for 0.2 s: the storage does not answer" in report.error for report in reports)
    assert {report.cause for report in reports} == {"no_answer"}


@pytest.mark.parametrize("on_device", [True, False])
def test_memory_for_copies_of_state_on_a_device_is_pinned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_device: bool
) -> None:
    pinned: list[int] = []
    pool = partial(HostPool, pin=lambda memory: pinned.append(memory.numel()))
    monkeypatch.setattr(checkpoints_module, "HostPool", pool)
    monkeypatch.setattr(save_part_module, "cuda_devices", lambda state: [torch.device("cuda")] if on_device else [])
    assert outcome(Run(tmp_path).to_the_end()) == [(2, True), (4, True), (6, True)]
    assert bool(pinned) == on_device


def test_without_memory_for_a_copy_training_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(size_bytes: int) -> torch.Tensor:
        raise RuntimeError(f"cannot allocate {size_bytes} bytes")

    monkeypatch.setattr(checkpoints_module, "HostPool", lambda count: HostPool(count, none))
    waited: list[LocalState] = []
    monkeypatch.setattr(save_part_module, "await_training", waited.append)
    run = Run(tmp_path)
    reports = run.to_the_end()
    assert outcome(reports) == [(2, False), (4, True), (6, True)]
    assert len(waited) >= 2, "another thread reads the live state: no device may still be at work on it"
    assert "rank 0: no host memory for a copy of the state: cannot allocate" in reports[0].error
    assert reports[0].cause == "no_memory"
    assert run.control.notices == [
        "there is no memory for a copy of the state: from now on training waits while it is saved"
    ]
    assert reports[1].ref is not None
    run.check(reports[1].ref)


def test_a_worker_that_leaves_reads_nothing_more_and_reports_nothing(tmp_path: Path, storage: Storage) -> None:
    run = Run(tmp_path)
    storage.open.clear()
    for _ in range(2):
        run.step()
    assert storage.waiting.wait(PATIENCE_S)
    (save,) = run.session._seat.saves._saves  # type: ignore[union-attr]
    run.session.close()
    assert save.own.snapshot is not None
    assert save.own.snapshot.settled(0.0)
    storage.open.set()
    save.own.part._thread.join(PATIENCE_S)
    assert not run.control.reports
    assert not list((tmp_path / "checkpoints").rglob("*.safetensors"))
    assert not survey(str(tmp_path / "checkpoints")).checkpoints
