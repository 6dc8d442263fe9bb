"""Where and when a job saves, and what its saves share from generation to generation: host memory, and manners."""

from __future__ import annotations

from dataclasses import dataclass, field

from trainctl.checkpoint.engine import CheckpointWriter
from trainctl.checkpoint.snapshot.host_pool import HostPool
from trainctl.checkpoint.storage.calls import Calls
from trainctl.checkpoint.storage.opening import open_storage
from trainctl.checkpoint.storage.probe import QUICK, try_out
from trainctl.core.records.spec import CheckpointSpec
from trainctl.core.system.faults import FaultPlan

IN_FLIGHT = 2
"""Saves that may be on their way at once: one is written while the next is copied."""


@dataclass(slots=True)
class Manners:
    """How a worker saves; what went wrong once is done more carefully from then on.

    Attributes:
        at_once: copies while training waits, since a copy beside it came too late or was disturbed.
        in_place: wants to write from the live state while training waits, since it has no memory for a copy.
    """

    at_once: bool = False
    in_place: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoints:
    """One worker's means to save.

    Attributes:
        spec: interval and retention.
        uri: folder that the job saves to; empty: it saves nothing.
        faults: armed fault points.
        manners: how it saves from now on.
        pool: host memory for the copies.
        snapshot_manners: how it makes snapshots.
        snapshot_pool: host memory for the copies that become snapshots.
    """

    spec: CheckpointSpec
    uri: str
    faults: FaultPlan
    manners: Manners = field(default_factory=Manners)
    pool: HostPool = field(default_factory=lambda: HostPool(IN_FLIGHT))
    snapshot_manners: Manners = field(default_factory=Manners)
    snapshot_pool: HostPool = field(default_factory=lambda: HostPool(1))

    @classmethod
    def of_job(cls, spec: CheckpointSpec, workdir: str, faults: FaultPlan) -> Checkpoints:
        """Saves to ``spec.uri``, or under the job's work folder; nowhere where there is neither."""
        uri = spec.uri or (f"{workdir}/checkpoints" if workdir else "")
        return cls(spec=spec, uri=uri, faults=faults)

    def due(self, step: int, *, steps: int, saved_step: int, by_time: bool | None = None) -> bool:
        """Whether the state after ``step`` of ``steps`` is saved, if ``saved_step`` was the last that was begun.

        A step that was to be saved and was not, since a generation ended, is made up for at the next boundary.

        Args:
            step: applied by all ranks.
            steps: of the run.
            saved_step: -1: nothing was saved.
            by_time: what the ranks agreed on (``Agreement.save_due``); None: steps are counted.
        """
        if step <= max(saved_step, 0):
            return False
        if step == steps or by_time is not None:
            return step == steps or by_time is True
        return _passed(self.spec.interval_steps, step, saved_step)

    def try_out(self) -> None:
        """Sees that this node can save to a storage somewhere else, before anything is trained.

        Raises:
            StorageRefusedError: a bucket, a right or credentials are missing.
            StorageAwayError: it cannot be reached.
        """
        if "://" in self.uri and not self.uri.startswith("file://"):
            try_out(open_storage(self.uri, calls=Calls(QUICK)), write=True)

    def snapshot_due(self, step: int, snapped_step: int, *, by_time: bool | None = None) -> bool:
        """Whether a snapshot of the state after ``step`` is made, if the last was begun at ``snapped_step``.

        Args:
            step: applied by all ranks.
            snapped_step: -1: none was begun.
            by_time: what the ranks agreed on (``Agreement.snapshot_due``); None: steps are counted.
        """
        if step <= max(snapped_step, 0):
            return False
        return by_time if by_time is not None else _passed(self.spec.snapshots.interval_steps, step, snapped_step)

    def writer(self) -> CheckpointWriter:
        """Opened where it is used, since opening the storage can fail, too.

        Raises:
            CheckpointError: the storage cannot be reached, or cannot take the layout.
        """
        return CheckpointWriter(self.uri, faults=self.faults, layout=self.spec.layout)


def _passed(interval: int, step: int, before: int) -> bool:
    """Whether a multiple of so many steps was reached since ``before``; 0 has none."""
    return interval > 0 and step // interval > max(before, 0) // interval
