"""What the controller sees of the cluster at one moment: the input of reconcile that is not persisted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from trainctl.controller.domain.pace import PACES_S
from trainctl.core.records.worker import WorkerObserved


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentView:
    """One agent life.

    Attributes:
        node: machine it runs on.
        agent_incarnation: which life.
        address: host that other nodes reach it at.
        slots: workers it may run.
        device: what its workers compute on: ``cpu`` or ``cuda``.
        connected: its stream is open.
        last_heard_age_s: seconds since its last message (since the controller's start, if none came yet).
        process_exited: the cluster confirms that its process is gone; its workers die with it.
        store_address: ``host:port`` of the collective store beside it, empty until it is up.
        metrics_address: where its metrics are served.
        cordoned: its node gets no new work.
        draining: its workers are to be moved away; it is cordoned, too.
        workers: newest observation of each worker it knows.
    """

    node: str
    agent_incarnation: int
    address: str = ""
    slots: int = 0
    device: str = "cpu"
    connected: bool = True
    last_heard_age_s: float = 0.0
    process_exited: bool = False
    store_address: str = ""
    metrics_address: str = ""
    cordoned: bool = False
    draining: bool = False
    workers: tuple[WorkerObserved, ...] = ()

    def worker(self, job_uid: str, slot: int, incarnation: int) -> WorkerObserved | None:
        """The newest observation of exactly this worker life, if this agent has reported one."""
        for worker in self.workers:
            if worker.incarnation == incarnation and worker.slot == slot and worker.job_uid == job_uid:
                return worker
        return None


class AgentViews(Protocol):
    """The known agent lives; each is looked at only when somebody asks for it, as there may be very many."""

    def __iter__(self) -> Iterator[AgentView]:
        """All of them, by node."""
        ...

    def get(self, agent_incarnation: int) -> AgentView | None:
        """The agent life with this number, if it is known."""
        ...

    def newest(self, node: str) -> int:
        """The newest agent life on a node; 0 if none is known."""
        ...

    @property
    def draining(self) -> frozenset[str]:
        """Nodes that are being emptied."""
        ...


class ListedAgents:
    """Implements ``AgentViews`` by those that are given."""

    def __init__(self, agents: Iterable[AgentView] = ()) -> None:
        self._agents = tuple(agents)
        self._by_life = {agent.agent_incarnation: agent for agent in self._agents}
        self._newest: dict[str, int] = {}
        for agent in self._agents:
            self._newest[agent.node] = max(self._newest.get(agent.node, 0), agent.agent_incarnation)

    def __iter__(self) -> Iterator[AgentView]:
        """See ``AgentViews``."""
        return iter(self._agents)

    def get(self, agent_incarnation: int) -> AgentView | None:
        """See ``AgentViews``."""
        return self._by_life.get(agent_incarnation)

    def newest(self, node: str) -> int:
        """See ``AgentViews``."""
        return self._newest.get(node, 0)

    @property
    def draining(self) -> frozenset[str]:
        """See ``AgentViews``."""
        return frozenset(agent.node for agent in self._agents if agent.draining)


NO_AGENTS = ListedAgents()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterView:
    """All known agent lives.

    Attributes:
        agents: each life that is the newest of its node, and those that processes were still seen of.
        settled: False in the settling window after a controller start: then no conclusion is drawn from silence.
        heartbeat_s: how often agents report.
    """

    agents: AgentViews = NO_AGENTS
    settled: bool = True
    heartbeat_s: float = PACES_S[0]

    def agent(self, agent_incarnation: int) -> AgentView | None:
        """The agent life with this number, if it is known."""
        return self.agents.get(agent_incarnation)

    def worker(self, job_uid: str, slot: int, incarnation: int, agent_incarnation: int) -> WorkerObserved | None:
        """The newest observation of exactly this worker life, if its agent has reported one."""
        agent = self.agent(agent_incarnation)
        return agent.worker(job_uid, slot, incarnation) if agent is not None else None
