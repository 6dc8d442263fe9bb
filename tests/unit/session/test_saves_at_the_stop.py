"""A job is told to stop while a checkpoint is being completed: what that one makes superfluous goes all the same.

Without it a job that was stopped could leave checkpoints that nobody removes.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trainctl.checkpoint.engine import CheckpointWriter
from trainctl.checkpoint.kept.catalog import survey
from trainctl.core.records.generation import CheckpointRef
from trainctl.core.records.worker import Instruction, WorkerDesired
from unit.session.saving_runs import Keeping, Run
from waiting import PATIENCE_S

STEPS, INTERVAL, KEEP = 1000, 20, 2


class Stopping(Keeping):
    """Says when the worker that was told to stop waits for something."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.waits = threading.Event()

    def stop(self) -> None:
        self._desired = replace(self._desired, instruction=Instruction.STOP)
        self.version += 1
        for callback in self._callbacks:
            callback(self._desired)

    def wait_newer(self, than: int, timeout_s: float) -> WorkerDesired | None:
        if self._desired.instruction is Instruction.STOP:
            self.waits.set()
            with self.told:
                self.told.wait(timeout_s)
        return super().wait_newer(than, timeout_s)


def test_the_one_before_the_last_two_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = threading.Event()
    run = Run(tmp_path, steps=STEPS, interval=INTERVAL, keep=KEEP, control=Stopping)
    control = run.control
    assert isinstance(control, Stopping)
    plainly = CheckpointWriter.seal

    def slowly(self: CheckpointWriter, *what: Any, **named: Any) -> CheckpointRef:
        if len(control.reports) == KEEP:
            begun.set()
            assert control.waits.wait(PATIENCE_S)
        return plainly(self, *what, **named)

    monkeypatch.setattr(CheckpointWriter, "seal", slowly)
    while not begun.wait(0.01):  # each save is over before the next begins
        run.step()
    control.stop()
    while not run.session.done:
        run.step()
    control.waits.set()
    control.wait_for(KEEP + 1)
    kept = [report.ref.step for report in control.reports if report.ref is not None][-KEEP:]
    assert sorted(info.ref.step for info in survey(str(tmp_path / "checkpoints")).checkpoints) == kept
