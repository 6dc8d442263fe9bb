"""Where a worker is: for its progress page, the fault points and every message about it."""

from __future__ import annotations

from trainctl.core.records.generation import GenerationRecord
from trainctl.core.records.step import Phase
from trainctl.core.records.worker import WorkerDesired
from trainctl.core.system.faults import FaultPlan
from trainctl.parallel.session.control import ProgressPage


class Whereabouts:
    """Kept by the training thread.

    Attributes:
        generation: generation it works in, 0 before the first.
        rank: in that generation.
        size: its world size.
        step: step it works on.
        voted_step: last step voted, as the progress page shows it.
    """

    def __init__(self, desired: WorkerDesired, page: ProgressPage, faults: FaultPlan) -> None:
        self._page = page
        self._faults = faults
        self._slot = desired.slot
        self._job = f"{desired.job_name}/{desired.island}"
        self.generation = 0
        self.rank = 0
        self.size = 0
        self.step = 0
        self.voted_step = 0

    def enter(self, record: GenerationRecord, rank: int) -> None:
        """From now on it works for this generation."""
        self.generation = record.generation
        self.rank = rank
        self.size = record.world_size
        self.step = self.voted_step = record.target_step

    def show(self, phase: Phase) -> None:
        """Publishes the phase."""
        self._page.phase(self.generation, self.voted_step, phase)

    def reach(self, point: str) -> None:
        """A fault point of the step protocol was reached."""
        self._faults.reach(point, slot=self._slot, rank=self.rank, step=self.step, generation=self.generation)

    def __str__(self) -> str:
        return (
            f"{self._job} generation {self.generation} step {self.step} on rank {self.rank} of {self.size} "
            f"(worker {self._slot})"
        )
