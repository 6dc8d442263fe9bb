"""Weights & Biases: the run's id is the job's, so that what several workers wrote becomes one run."""

from __future__ import annotations

from typing import Any

from trainctl.core.codec import to_wire
from trainctl.core.records.places import WANDB
from trainctl.core.records.step import StepFigures
from trainctl.parallel.results.folder import RecordsFolder
from trainctl.parallel.results.hook import Hook, Recovery, Run, RunEnd
from trainctl.parallel.results.scalars import scalars


class WeightsAndBiases(Hook):
    """Offline by default: ``wandb sync records/wandb/offline-run-*`` sends all of it up.

    The axis is our own ``step``: W&B's may not go back, but a job may; ``lineage`` tells repeated steps apart.
    """

    def __init__(self) -> None:
        self._folder: RecordsFolder | None = None
        self._run: Any = None

    def on_start(self, run: Run) -> None:
        """Opens the run, or goes on with it."""
        import wandb

        self._folder = RecordsFolder(run.records, WANDB)
        spec = run.spec.results.wandb
        self._run = wandb.init(
            project=spec.project,
            mode="online" if spec.mode == "online" else "offline",
            id=run.job_uid,
            name=run.job_name,
            resume="allow" if spec.mode == "online" else None,
            dir=str(self._folder.path.parent),
            config=to_wire(run.spec),
            settings=wandb.Settings(console="off", silent=True, disable_git=True, x_disable_stats=True),
        )
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="step")

    def on_step(self, figures: StepFigures) -> None:
        """Logs the figures."""
        self._run.log({"step": figures.step, "lineage": figures.lineage, **scalars(figures)})

    def on_recovery(self, recovery: Recovery) -> None:
        """Keeps what happened with the run."""
        self._run.summary["recoveries/generation"] = recovery.generation
        self._run.summary["recoveries/last_reason"] = recovery.reason

    def on_end(self, end: RunEnd) -> None:
        """Closes the run; a worker that ends then waits for W&B's own process, which writes the file."""
        import wandb

        exit_code = 1 if end.reason == "failed" else 0
        self._run.finish(exit_code=exit_code)
        if end.reason != "moved":
            wandb.teardown(exit_code=exit_code)
        if self._folder is not None:
            self._folder.publish(last=True)

    def flush(self) -> None:
        """Sends files up where the records lie elsewhere."""
        if self._folder is not None:
            self._folder.publish()
