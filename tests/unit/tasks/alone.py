"""One worker in this process, under a control that keeps what it is told; it saves, and can go on from a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from trainctl.core.codec import to_wire
from trainctl.core.records.generation import CheckpointRef
from trainctl.core.records.spec import CheckpointSpec, JobMetadata, JobSpec, TrainJob
from trainctl.core.records.step import StepFigures
from trainctl.core.records.train_spec import TrainSpec
from trainctl.parallel.bridge import Checkpointed, Figures, WorkerMessage
from trainctl.parallel.loop import CPU, Prepared, prepare
from trainctl.parallel.session import Session
from trainctl.parallel.session.control import NoControl, NoPage


class KeepingControl(NoControl):
    """``NoControl`` with a job file and a work folder."""

    def __init__(self, spec: TrainSpec, workdir: Path, resume: CheckpointRef | None, interval: int) -> None:
        super().__init__()
        self.figures: list[StepFigures] = []
        self.saved: list[CheckpointRef] = []
        record = self._desired.record
        assert record is not None
        if resume is not None:
            record = replace(record, checkpoint=resume, target_step=resume.step)
        job = JobSpec(train=spec, checkpoint=CheckpointSpec(interval_steps=interval))
        wire = to_wire(TrainJob(metadata=JobMetadata(name="alone"), spec=job))
        self._desired = replace(self._desired, spec=wire, workdir=str(workdir), record=record)

    def send(self, message: WorkerMessage) -> None:
        if isinstance(message, Figures):
            self.figures += message.figures
        if isinstance(message, Checkpointed):
            assert not message.report.error, message.report.error
            assert message.report.ref is not None
            self.saved.append(message.report.ref)
        super().send(message)


class Run:
    """What came of a run.

    Attributes:
        losses: by step.
        saved: its checkpoints.
        prepared: model, data and optimizer.
    """

    def __init__(self, control: KeepingControl, prepared: Prepared) -> None:
        self.figures = sorted(control.figures, key=lambda f: f.step)
        self.losses = [f.loss for f in self.figures]
        self.saved = control.saved
        self.prepared = prepared

    @property
    def state(self) -> dict[str, torch.Tensor]:
        return dict(self.prepared.task.model.state_dict())


def train_alone(
    spec: TrainSpec,
    folder: Path,
    *,
    resume: CheckpointRef | None = None,
    interval: int = 0,
    watch: Callable[[tuple[int, ...]], None] = lambda ids: None,
) -> Run:
    """Trains ``spec`` to its end; caches and checkpoints go to ``folder``."""
    prepared = prepare(spec, str(folder / "cache"), CPU)
    control = KeepingControl(spec, folder, resume, interval)
    with Session.open(control=control, page=NoPage()) as session:
        prepared.register(session)
        task = prepared.task
        while not session.done:
            with session.step() as step:
                for micro_batch in step.micro_batches():
                    watch(tuple(micro_batch.sample_ids))
                    step.backward(*task.loss(task.dataset.batch(micro_batch.sample_ids)))
    run = Run(control, prepared)
    assert all(map(math.isfinite, run.losses))
    return run
