"""Who has yet to do what the workers of a job were told: before the last one has, a look at it finds nothing new."""

from __future__ import annotations

from collections.abc import Sequence

from trainctl.controller.domain.job_state import IslandState, JobState, Proposal
from trainctl.core.records.generation import GenerationRecord
from trainctl.core.records.worker import WorkerObserved, WorkerPhase

_TRAINS = frozenset({WorkerPhase.RUNNING, WorkerPhase.FINISHED})


class Answers:
    """Agents whose workers have not answered the newest proposal or record of a job.

    Only the pace of looks hangs on it: what it misses, such as answers to an earlier leader, is found a little later.
    """

    def __init__(self) -> None:
        self._asked: Proposal | GenerationRecord | None = None
        self._missing: set[int] = set()

    def awaited(self, state: JobState) -> bool:
        """Whether an answer is missing."""
        self._follow(state.sole_island)
        return bool(self._missing)

    def take(self, state: JobState, agent_incarnation: int, workers: Sequence[WorkerObserved]) -> bool:
        """Something new that an agent shows; whether it is an answer."""
        self._follow(state.sole_island)
        asked = self._asked
        if asked is None or agent_incarnation not in self._missing:
            return False
        own = [worker for worker in workers if worker.job_uid == state.uid]
        if not own or not all(_answers(worker, asked) for worker in own):
            return False
        self._missing.discard(agent_incarnation)
        return True

    def _follow(self, island: IslandState) -> None:
        asked = island.proposal or (island.record if not island.entered else None)
        if asked is self._asked:
            return
        self._asked = asked
        if isinstance(asked, Proposal):
            self._missing = {island.slots[index].agent_incarnation for index in asked.slots}
        else:
            self._missing = {member.agent_incarnation for member in asked.members} if asked is not None else set()


def _answers(worker: WorkerObserved, asked: Proposal | GenerationRecord) -> bool:
    if isinstance(asked, Proposal):
        return worker.report is not None and worker.report.prepared_generation == asked.generation
    return worker.generation == asked.generation and worker.phase in _TRAINS
