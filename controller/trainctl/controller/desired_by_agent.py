"""What each agent shall run, of all jobs together; knows whom a change concerns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from trainctl.controller.desired_message import DesiredMessages
from trainctl.controller.domain.desired import DesiredWorkers
from trainctl.controller.domain.job_state import JobState
from trainctl.core.records.worker import WorkerDesired
from trainctl.protos.v1 import agent_pb2


@dataclass(slots=True)
class _OfJob:
    """One job's part.

    Attributes:
        composer: makes what is desired of a state.
        workers: of the newest state, by agent.
    """

    composer: DesiredWorkers = field(default_factory=DesiredWorkers)
    workers: Mapping[int, tuple[WorkerDesired, ...]] = field(default_factory=dict[int, tuple[WorkerDesired, ...]])


class DesiredByAgent:
    """The desired workers of every agent. Give it committed states only: agents act on what it says."""

    def __init__(self) -> None:
        self._jobs: dict[str, _OfJob] = {}
        self._messages = DesiredMessages()

    def follow(self, state: JobState) -> frozenset[int]:
        """Takes a job's newest committed state in; the agents, by incarnation, that are to be told something else."""
        job = self._jobs.setdefault(state.uid, _OfJob())
        before, job.workers = job.workers, job.composer.of(state)
        if not job.workers:
            del self._jobs[state.uid]
            self._messages.forget(state.uid)
        agents = {*before, *job.workers}
        return frozenset(agent for agent in agents if before.get(agent, ()) != job.workers.get(agent, ()))

    def write(self, agent_incarnation: int, message: agent_pb2.AgentDesired) -> None:
        """Adds every worker that the agent shall have."""
        for job in self._jobs.values():
            for worker in job.workers.get(agent_incarnation, ()):
                self._messages.add(worker, message)
