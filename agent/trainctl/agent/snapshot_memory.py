"""This node's memory for snapshots: made for the workers, kept while their job may need it, then given back.

Workers write to it and read from it by themselves. It is the agent's because it shall outlive them.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Sequence
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
        problem = claim_memory_folder(folder) if folder is not None else ""
        if problem:
            _LOG.warning("no snapshots on this node: %s", problem)
        self.folder = None if problem else folder
        self._wanted_s = dict.fromkeys(self._jobs(), now_s)

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
            assert self.folder is not None
            shutil.rmtree(self.folder / job, ignore_errors=True)
            self._wanted_s.pop(job, None)

    def close(self) -> None:
        """Gives everything back."""
        if self.folder is not None:
            remove_memory_folder(self.folder)

    def _jobs(self) -> list[str]:
        return sorted(entry.name for entry in self.folder.iterdir()) if self.folder is not None else []
