"""``Hook``: the interface for whoever wants to hear of a run's steps, evaluations, checkpoints and recoveries.

::

    from trainctl.parallel.results import Hook

    class Notify(Hook):
        def on_evaluate(self, figures):
            if figures.eval_loss < 2.0:
                send_mail(f"step {figures.step}: {figures.eval_loss:.3f}")

    # in the job file: results: {hooks: ["my_project.hooks:Notify"]}

A hook lives on the worker of rank 0 only, in a thread of its own. Whatever it does, training goes on: calls wait for it
in a bounded queue, the oldest of them are left out where it is too slow, and a hook that raises again and again is
switched off. When rank 0 is lost, the worker that takes its place makes a new hook, which is told of every step after
the last one that the lost one had finished with. A step that was just being delivered may come twice.
"""

from __future__ import annotations

from dataclasses import dataclass

from trainctl.core.records.generation import Rung
from trainctl.core.records.spec import JobSpec
from trainctl.core.records.step import StepFigures
from trainctl.core.records.worker import CheckpointReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a hook is told first.

    Attributes:
        job_uid: unique over all jobs, the same after every recovery.
        job_name: as in the job file.
        spec: of the job.
        steps: number of the last step.
        step: last step that the job's earlier hook of this name had finished with; 0 at the start of a job.
        lineage: chain of steps that ``step`` belongs to; it rises when steps are taken back.
        generation: generation that the worker enters.
        records: folder or URI of the job's records, empty where it has none.
    """

    job_uid: str
    job_name: str
    spec: JobSpec
    steps: int
    step: int
    lineage: int
    generation: int
    records: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """The job goes on after a change of its members.

    Attributes:
        generation: the new one.
        lineage: chain of steps that goes on.
        step: the state is that after this step. Figures of later steps, of an older lineage, are taken back.
        rung: how workers without the state obtained it.
        reason: one sentence.
        workers: number of workers from now on.
    """

    generation: int
    lineage: int
    step: int
    rung: Rung
    reason: str
    workers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnd:
    """The last thing a hook hears.

    Attributes:
        step: last step applied.
        reason: ``finished`` (the last step of the job), ``stopped`` (cancelled, drained), ``failed`` (this worker
            raised) or ``moved`` (another worker is rank 0 now, and its hook goes on).
    """

    step: int
    reason: str


class Hook:
    """Override what you want to hear of; every method does nothing by itself. It is made without arguments."""

    def on_start(self, run: Run) -> None:
        """Once, before anything else."""

    def on_step(self, figures: StepFigures) -> None:
        """A step was committed; in order, each once (see the module for the one exception)."""

    def on_evaluate(self, figures: StepFigures) -> None:
        """After ``on_step`` of a step with a held-out loss: ``figures.eval_loss``."""

    def on_checkpoint(self, report: CheckpointReport) -> None:
        """A checkpoint is complete (``report.ref``), or its attempt failed (``report.error``)."""

    def on_recovery(self, recovery: Recovery) -> None:
        """A generation after the first one was entered."""

    def on_end(self, end: RunEnd) -> None:
        """This worker's part is over. There are a few seconds to finish; a worker that was killed does not get here."""

    def flush(self) -> None:
        """No more calls wait for now: a good moment to write what was collected. Called at least every few seconds."""


class Recorder(Hook):
    """A built-in hook that can be made to write at once: a checkpoint waits for it for a moment.

    Attributes:
        trouble: why it cannot write at the moment, in one sentence; it tries again by itself.
    """

    trouble = ""

    def settle(self) -> None:
        """Writes what was collected, whatever ``flush`` would put off."""
