"""Hooks of a user, as a job file names them: they write down what they hear, or misbehave."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

from trainctl.core.records.step import StepFigures
from trainctl.core.records.worker import CheckpointReport
from trainctl.parallel.results import Hook, Recovery, Run, RunEnd


class Recording(Hook):
    def __init__(self) -> None:
        self._path = Path()

    def _note(self, call: str, **facts: Any) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps({"call": call, "pid": os.getpid(), **facts}) + "\n")

    def on_start(self, run: Run) -> None:
        self._path = Path(run.spec.env["RECORDING_HOOKS"]) / f"{type(self).__name__}.jsonl"
        self._note("start", step=run.step, lineage=run.lineage, steps=run.steps)

    def on_step(self, figures: StepFigures) -> None:
        self._note("step", step=figures.step, lineage=figures.lineage)

    def on_evaluate(self, figures: StepFigures) -> None:
        self._note("evaluate", step=figures.step, loss=figures.eval_loss)

    def on_checkpoint(self, report: CheckpointReport) -> None:
        self._note("checkpoint", step=report.step)

    def on_recovery(self, recovery: Recovery) -> None:
        self._note("recovery", step=recovery.step, lineage=recovery.lineage, generation=recovery.generation)

    def on_end(self, end: RunEnd) -> None:
        self._note("end", step=end.step, reason=end.reason)


class Raising(Recording):
    def on_start(self, run: Run) -> None:
        self._path = Path(run.spec.env["RECORDING_HOOKS"]) / "Raising.jsonl"

    def on_step(self, figures: StepFigures) -> None:
        super().on_step(figures)
        raise ValueError(f"no, not step {figures.step}")


class Hanging(Recording):
    def on_start(self, run: Run) -> None:
        self._path = Path(run.spec.env["RECORDING_HOOKS"]) / "Hanging.jsonl"

    def on_step(self, figures: StepFigures) -> None:
        super().on_step(figures)
        threading.Event().wait()


class NotAHook:
    pass
