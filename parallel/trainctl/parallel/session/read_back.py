"""Reads checkpoints back beside the training, each once, and says what was found."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Generator

import torch

from trainctl.checkpoint.kept.catalog import Survey
from trainctl.checkpoint.kept.read_back import read_back
from trainctl.checkpoint.snapshot.pace import Pace
from trainctl.core.errors import DamagedCheckpointError
from trainctl.core.records.generation import CheckpointRef
from trainctl.core.records.worker import CheckpointReport


class ReadBack:
    """Remembers the last one that was right, for who asks again; for one thread.

    Args:
        job: uid of the job.
        island: of the worker.
    """

    def __init__(self, job: str, island: str) -> None:
        self._job = job
        self._island = island
        self._right = ""
        self._took_s = 0.0
        self._nobody_trains = threading.Event()

    @contextlib.contextmanager
    def hurry(self) -> Generator[None, None, None]:
        """Somebody waits for it, and nobody trains: there is no need to rest; to be called on any one thread."""
        self._nobody_trains.set()
        try:
            yield
        finally:
            self._nobody_trains.clear()

    def check(self, ref: CheckpointRef) -> None:
        """Reads a checkpoint, unless it was and is right. One that is damaged may have been repaired since.

        Raises:
            DamagedCheckpointError: it is not what was saved.
            CheckpointError: the storage refused, or is away.
        """
        if ref.attempt == self._right:
            return
        began_s = time.monotonic()
        pace = Pace(torch.get_num_threads())

        def rest() -> None:
            self._nobody_trains.wait(pace.due_s())
            pace.resume()

        try:
            read_back(ref, pause=rest)
            self._right = ref.attempt
        finally:
            self._took_s = time.monotonic() - began_s

    def report(self, attempt: str, found: Survey, *, generation: int) -> CheckpointReport | None:
        """What the controller is told of a checkpoint, once it has been read; None if no manifest of it is there.

        Args:
            attempt: that it asked for.
            found: what lies where the job saves to.
            generation: that asks.

        Raises:
            CheckpointError: the storage refused, or is away.
        """
        info = next((i for i in (*found.checkpoints, *found.damaged) if i.ref.attempt == attempt), None)
        if info is None:  # somebody removed it, or the folder is not mounted: neither says anything of its bytes
            return None
        error = ""
        try:
            self.check(info.ref)
        except DamagedCheckpointError as damage:
            error = str(damage)
        return CheckpointReport(
            job_uid=self._job,
            island=self._island,
            generation=generation,
            step=info.ref.step,
            lineage=info.ref.lineage,
            ref=info.ref,
            error=error,
            seconds=self._took_s,
            read_back=True,
        )
