"""Event files that TensorBoard shows, written by torch's writer and the library ``tensorboard``."""

from __future__ import annotations

from typing import Any

from trainctl.core.records.places import TENSORBOARD
from trainctl.core.records.step import StepFigures
from trainctl.parallel.results.folder import RecordsFolder
from trainctl.parallel.results.hook import Hook, Recovery, Run, RunEnd
from trainctl.parallel.results.scalars import scalars


class TensorBoard(Hook):
    """One scalar for each figure. Steps that were taken back vanish from TensorBoard's curves (``purge_step``)."""

    def __init__(self) -> None:
        self._folder: RecordsFolder | None = None
        self._writer: Any = None
        self._step = 0

    def on_start(self, run: Run) -> None:
        """Begins an event file behind those of former workers."""
        self._folder = RecordsFolder(run.records, TENSORBOARD)
        self._begin(run.step)

    def on_step(self, figures: StepFigures) -> None:
        """Writes the figures."""
        self._step = figures.step
        for name, value in scalars(figures).items():
            self._writer.add_scalar(name, value, figures.step, walltime=figures.wall_s)

    def on_recovery(self, recovery: Recovery) -> None:
        """Takes back later steps."""
        if recovery.step < self._step:
            self._writer.close()
            self._begin(recovery.step)

    def on_end(self, end: RunEnd) -> None:
        """Closes the file."""
        self._writer.close()
        if self._folder is not None:
            self._folder.publish(last=True)

    def flush(self) -> None:
        """Makes what was written visible."""
        if self._writer is not None and self._folder is not None:
            self._writer.flush()
            self._folder.publish()

    def _begin(self, step: int) -> None:
        """A new file: what others say of steps after ``step`` no longer counts."""
        from torch.utils.tensorboard import SummaryWriter

        assert self._folder is not None
        self._step = step
        purge = step + 1 if step else None
        self._writer = SummaryWriter(str(self._folder.path), purge_step=purge)
