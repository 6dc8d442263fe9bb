"""This node's room for snapshots: made for the workers that want it, kept while their job may need it, given back.

Workers write to it and read from it by themselves. It is the agent's because it shall outlive them; that on a disk
outlives the agent and the machine, too.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from trainctl.core.plain import is_mapping
from trainctl.core.records.spec import DISK, MEMORY
from trainctl.core.records.worker import WorkerDesired
from trainctl.core.system.memory_folder import claim_memory_folder, remove_memory_folder

_LOG = logging.getLogger(__name__)
KEPT_S = 300.0
"""How long the snapshots of a job stay that nobody wants workers of: one that waits for a node comes back sooner."""
KEPT_ON_DISK_S = 6 * 3600.0
"""The same on a disk: a disk has more room than memory, and a machine that is started again takes its time."""


class SnapshotMemory:
    """Room of one kind.

    Args:
        folder: of this agent; None: the node has none to give.
        now_s: monotonic.
        place: for jobs that want their snapshots there.
    """

    def __init__(self, folder: Path | None, now_s: float, *, place: str = MEMORY) -> None:
        self._folder = folder
        self._place = place
        self._kept_s = KEPT_ON_DISK_S if place == DISK else KEPT_S
        self._wanted_s = dict.fromkeys(self._jobs(), now_s)

    def of(self, desired: WorkerDesired) -> Path | None:
        """The folder for a worker; None if its job makes no snapshots here, or if there is none that is ours alone."""
        if self._folder is None or _place_of(desired.spec) != self._place:
            return None
        if problem := claim_memory_folder(self._folder):
            _LOG.warning("job %s: no snapshots on this node: %s", desired.job_name, problem)
            return None
        return self._folder

    def know(self, desired: Sequence[WorkerDesired], now_s: float) -> None:
        """Notes which jobs have workers here."""
        self._wanted_s.update((each.job_uid, now_s) for each in desired)

    def sweep(self, wanted: Sequence[WorkerDesired], now_s: float) -> None:
        """Removes the snapshots of jobs that had no workers here for long."""
        self.know(wanted, now_s)
        self.forget(job for job in self._jobs() if now_s - self._wanted_s.setdefault(job, now_s) > self._kept_s)

    def forget(self, jobs: Iterable[str]) -> None:
        """Removes those of jobs that are over."""
        for job in set(jobs) & set(self._jobs()):
            assert self._folder is not None
            shutil.rmtree(self._folder / job, ignore_errors=True)
            self._wanted_s.pop(job, None)

    def close(self) -> None:
        """Gives memory back; a disk keeps what is on it for the next agent of this folder."""
        if self._folder is not None and self._place == MEMORY:
            remove_memory_folder(self._folder)

    def _jobs(self) -> list[str]:
        if self._folder is None or not self._folder.is_dir() or claim_memory_folder(self._folder):
            return []
        return sorted(entry.name for entry in self._folder.iterdir())


class SnapshotRoom:
    """Both kinds together; the methods are those of each.

    Args:
        memory: folder on a memory file system; None: there is none.
        disk: folder on a disk of this machine; None: there is none.
        now_s: monotonic.
    """

    def __init__(self, memory: Path | None, disk: Path | None, now_s: float) -> None:
        self._rooms = SnapshotMemory(memory, now_s), SnapshotMemory(disk, now_s, place=DISK)

    def of(self, desired: WorkerDesired) -> Path | None:
        """The folder for a worker, of the kind that its job wants; None: there is none."""
        return next((folder for room in self._rooms if (folder := room.of(desired)) is not None), None)

    def know(self, desired: Sequence[WorkerDesired], now_s: float) -> None:
        """Notes which jobs have workers here."""
        for room in self._rooms:
            room.know(desired, now_s)

    def sweep(self, wanted: Sequence[WorkerDesired], now_s: float) -> None:
        """Removes the snapshots of jobs that had no workers here for long."""
        for room in self._rooms:
            room.sweep(wanted, now_s)

    def forget(self, jobs: Iterable[str]) -> None:
        """Removes those of jobs that are over."""
        over = tuple(jobs)
        for room in self._rooms:
            room.forget(over)

    def close(self) -> None:
        """The agent ends."""
        for room in self._rooms:
            room.close()


def _place_of(spec: Mapping[str, object]) -> str:
    """Where a job keeps snapshots; empty if it makes none.

    Looked up as it came: what else is in a job's file is for its workers to understand, not for the agent.
    """
    found: object = spec
    for key in ("spec", "checkpoint", "snapshots"):
        found = found.get(key) if is_mapping(found) else None
    if not is_mapping(found):
        return ""
    steps, interval = found.get("intervalSteps"), found.get("interval")
    wanted = (isinstance(steps, int) and steps > 0) or (isinstance(interval, str) and bool(interval))
    return str(found.get("place", MEMORY)) if wanted else ""
