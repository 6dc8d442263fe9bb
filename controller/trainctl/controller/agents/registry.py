"""Who is there: registered agent lives, their sessions and newest observations, as one ``ClusterView``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from trainctl.controller import keys
from trainctl.controller.agents.agent import Agent, NodeMark, Registration
from trainctl.controller.agents.live_agents import LiveAgents
from trainctl.controller.agents.session import AgentSession
from trainctl.controller.cluster.port import AgentProcess
from trainctl.controller.domain.pace import heartbeat_s, is_news
from trainctl.controller.domain.view import ClusterView
from trainctl.controller.leadership import Leadership
from trainctl.controller.store.port import Compare, KeyValue, Operation, Put, Target
from trainctl.controller.stored import reading
from trainctl.core.codec import from_wire, to_wire
from trainctl.core.errors import FencedError, NotFoundError
from trainctl.core.records.worker import WorkerObserved
from trainctl.protos.v1 import agent_pb2

MAX_GAP_S = 1.0
"""Longer without a turn, and the controller itself was away."""


class StaleIncarnationError(FencedError):
    """The agent's life is over: it must end its workers and register anew."""

    code = "STALE_INCARNATION"


class AgentRegistry:
    """All agents, by node. Liveness is in memory only: heartbeats never touch the store.

    Args:
        monotonic_s: the clock that silence is measured on.
        settle_s: for so long after the start, unless every known agent reports before, no silence counts.

    Attributes:
        doubt: why the store may be an old copy, so that agents may live that it does not know of; empty if it is not.
            As long as there is doubt no silence counts at all.
        heartbeat_s: how often agents are to report; the more they are, the more rarely.
    """

    def __init__(self, monotonic_s: Callable[[], float], *, settle_s: float) -> None:
        self._monotonic_s = monotonic_s
        self._settle_until_s = monotonic_s() + settle_s
        self._settled = False
        self._settle_s = settle_s
        self._awake_s = monotonic_s()
        self._agents: dict[str, Agent] = {}
        self._lives: dict[int, Agent] = {}
        self._marks: dict[str, NodeMark] = {}
        self.doubt = ""
        self.heartbeat_s = heartbeat_s(0)

    def awake(self) -> None:
        """This process runs; called often. After a gap, what the agents said meanwhile is still to be read.

        So a controller that was frozen, or its machine, settles anew like one that was started: silence that began
        while nobody listened is no evidence.
        """
        now_s = self._monotonic_s()
        gap_s, self._awake_s = now_s - self._awake_s, now_s
        if gap_s <= MAX_GAP_S:
            return
        self._settled = False
        self._settle_until_s = now_s + self._settle_s
        for agent in self._agents.values():
            agent.heard_s = now_s
            agent.reported = False

    def load(self, stored: Iterable[KeyValue]) -> None:
        """Takes in the registrations of an earlier controller life; their silence counts from now."""
        for item in stored:
            with reading(item.key):
                registration = from_wire(Registration, keys.decode(item.value))
            self._begin(registration, item.mod_revision)
        self._keep_pace()

    def load_marks(self, stored: Iterable[KeyValue]) -> None:
        """Takes in what operators said of nodes."""
        for item in stored:
            with reading(item.key):
                self._marks[item.key.removeprefix(keys.MARKS)] = from_wire(NodeMark, keys.decode(item.value))

    def mark_of(self, node: str) -> NodeMark:
        """What was said of a node."""
        return self._marks.get(node, NodeMark())

    async def mark(
        self, leadership: Leadership, node: str, mark: NodeMark, *, compares: Sequence[Compare],
        operations: Sequence[Operation],
    ) -> None:  # fmt: skip
        """Writes down what an operator says of a node, together with what the caller adds.

        Raises:
            NotFoundError: no agent of that name ever registered.
            FencedError: this controller no longer leads.
        """
        if node not in self._agents:
            known = ", ".join(sorted(self._agents)) or "none yet"
            raise NotFoundError(f"no node {node!r}; known nodes: {known}", hint="`trainctl nodes list` lists them")
        put = Put(keys.node_mark(node), keys.encode(to_wire(mark)))
        await leadership.txn(compares, (put, *operations))
        self._marks[node] = mark

    async def register(self, leadership: Leadership, registration: Registration) -> int:
        """Begins a new agent life; the one before on this node is over. Returns the incarnation.

        Raises:
            FencedError: this controller no longer leads.
        """
        put = Put(keys.node(registration.node), keys.encode(to_wire(registration)))
        former = self._agents.get(registration.node)
        revision = former.incarnation if former is not None else 0
        # Compared, so that an older registration whose answer was lost cannot take effect later and end this life.
        while not (
            result := await leadership.txn((Compare(put.key, Target.MOD_REVISION, revision),), (put,))
        ).succeeded:
            (stored,) = result.current
            revision = stored.mod_revision if stored is not None else 0
        former = self._agents.get(registration.node)
        if former is not None and former.incarnation > result.revision:
            raise self.stale(registration.node, result.revision)
        self._begin(registration, result.revision)
        self._keep_pace()
        if former is not None and former.session is not None:
            former.session.close(self.stale(registration.node, former.incarnation))
        return result.revision

    def open(
        self, node: str, incarnation: int, desired: Callable[[], agent_pb2.AgentDesired]
    ) -> tuple[Agent, AgentSession]:
        """Opens the session of a registered agent life; an older one of the same life is closed.

        Raises:
            StaleIncarnationError: this life is unknown or over.
        """
        agent = self._agents.get(node)
        if agent is None or agent.incarnation != incarnation:
            raise self.stale(node, incarnation)
        if agent.session is not None:
            agent.session.close()
        agent.session = AgentSession(node, incarnation, desired, self._monotonic_s)
        agent.reported = False
        agent.heard_s = self._monotonic_s()
        return agent, agent.session

    def jobs_of(self, node: str, incarnation: int) -> set[str]:
        """Where to note the jobs of an agent life.

        Raises:
            StaleIncarnationError: this life is unknown or over.
        """
        agent = self._agents.get(node)
        if agent is None or agent.incarnation != incarnation:
            raise self.stale(node, incarnation)
        return agent.jobs

    def close(self, agent: Agent, session: AgentSession) -> None:
        """The stream ended; unless another one took over, the agent is silent from now on."""
        session.close()
        if agent.session is session:
            agent.session = None
            agent.reported = False

    @contextmanager
    def hearing(self, agent: Agent) -> Iterator[None]:
        """A message of the agent came and is dealt with in this block.

        Nobody listens to it meanwhile, perhaps because the store is away, so its silence is no evidence.
        """
        agent.heard_s = self._monotonic_s()
        agent.attended += 1
        try:
            yield
        finally:
            agent.attended -= 1
            agent.heard_s = self._monotonic_s()

    def observed(self, agent: Agent, *, store_address: str, workers: tuple[WorkerObserved, ...]) -> bool:
        """The agent's whole observation came; whether it shows more than progress."""
        news = not agent.reported or agent.process_exited or agent.store_address != store_address
        news = news or is_news(agent.workers, workers)
        agent.store_address = store_address
        agent.workers = workers
        agent.reported = True
        agent.process_exited = False
        return news

    def processes(self, processes: Iterable[AgentProcess]) -> None:
        """What the cluster says about the agents' processes: another one on the node replaced the registered one."""
        for process in processes:
            agent = self._agents.get(process.node)
            if agent is None:
                continue
            if agent.registration.pid == process.pid:
                agent.process_exited = not process.alive
            elif process.alive:
                agent.process_exited = True

    @property
    def count(self) -> int:
        """Number of nodes whose agents are known."""
        return len(self._agents)

    def agents(self) -> tuple[Agent, ...]:
        """All agents, by node."""
        return tuple(agent for _, agent in sorted(self._agents.items()))

    def sessions(self) -> tuple[AgentSession, ...]:
        """Open sessions, by node."""
        return tuple(agent.session for agent in self.agents() if agent.session is not None)

    def close_sessions(self) -> None:
        """This controller stops: every stream ends, and the agents look for the next one."""
        for session in self.sessions():
            session.close()

    def unsettled_for_s(self) -> float:
        """Seconds until the settling window ends; 0 when it is over."""
        self._look_settled()
        return 0.0 if self._settled else max(0.001, self._settle_until_s - self._monotonic_s())

    def view(self) -> ClusterView:
        """What reconcile sees."""
        self.awake()
        self._look_settled()
        settled = self._settled and not self.doubt
        return ClusterView(
            agents=LiveAgents(self._agents, self._lives, self._marks, self._monotonic_s()),
            settled=settled,
            heartbeat_s=self.heartbeat_s,
        )

    @staticmethod
    def stale(node: str, incarnation: int) -> StaleIncarnationError:
        """The error that tells an agent that its life is over."""
        return StaleIncarnationError(
            f"agent incarnation {incarnation} of {node} is over: unknown here, or replaced by a newer one",
            hint="the agent ends its workers and registers anew",
        )

    def _begin(self, registration: Registration, incarnation: int) -> None:
        former = self._agents.get(registration.node)
        if former is not None:
            self._lives.pop(former.incarnation, None)
        agent = Agent(registration, incarnation, self._monotonic_s())
        self._agents[registration.node] = self._lives[incarnation] = agent

    def _keep_pace(self) -> None:
        """Tells everybody when agents are to report more rarely; never more often again, as long as this one leads."""
        period_s = heartbeat_s(len(self._agents))
        if period_s > self.heartbeat_s:
            self.heartbeat_s = period_s
            for session in self.sessions():
                session.desire()

    def _look_settled(self) -> None:
        if not self._settled:
            everybody = all(agent.reported or agent.process_exited for agent in self._agents.values())
            self._settled = everybody or self._monotonic_s() >= self._settle_until_s
