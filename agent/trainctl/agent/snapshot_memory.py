"""This node's memory for snapshots: made for the workers that want it, kept while their job may need it, given back.

Workers write to it and read from it by themselves. It is the agent's because it shall outlive them.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from trainctl.core.records.worker import WorkerDesired
from trainctl.core.system.memory_folder import claim_memory_folder, remove_memory_folder

_LOG = logging.getLogger(__name__)
KEPT_S = 300.0
"""How long the snapshots of a job stay that nobody wants workers of: one that waits for a node comes back sooner."""


class SnapshotMemory:
    """See above.

    Args:
        folder: in memory, of this agent; None: the node has none to give.
        now_s: monotonic.
    """

    def __init__(self, folder: Path | None, now_s: float) -> None:
        self._folder = folder
        self._wanted_s = dict.fromkeys(self._jobs(), now_s)

    def of(self, desired: WorkerDesired) -> Path | None:
        """The folder for a worker; None if its job makes no snapshots, or if there is no memory that is ours alone."""
        if self._folder is None or not _makes_snapshots(desired.spec):
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
        self.forget(job for job in self._jobs() if now_s - self._wanted_s.setdefault(job, now_s) > KEPT_S)

    def forget(self, jobs: Iterable[str]) -> None:
        """Removes those of jobs that are over."""
        for job in set(jobs) & set(self._jobs()):
            assert self._folder is not None
            shutil.rmtree(self._folder / job, ignore_errors=True)
            self._wanted_s.pop(job, None)

    def close(self) -> None:
        """Gives everything back."""
        if self._folder is not None:
            remove_memory_folder(self._folder)

    def _jobs(self) -> list[str]:
        if self._folder is None or not self._folder.is_dir() or claim_memory_folder(self._folder):
            return []
        return sorted(entry.name for entry in self._folder.iterdir())


def _makes_snapshots(spec: Mapping[str, object]) -> bool:
    """Looked up as it came: what else is in a job's file is for its workers to understand, not for the agent."""
    found: object = spec
    for key in ("spec", "checkpoint", "snapshots"):
        found = found.get(key) if isinstance(found, Mapping) else None
    if not isinstance(found, Mapping):
        return False
    steps, interval = found.get("intervalSteps"), found.get("interval")
    return (isinstance(steps, int) and steps > 0) or (isinstance(interval, str) and bool(interval))
