"""Who is there: registered agent lives, their sessions and newest observations, as one ``ClusterView``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from trainctl.controller import keys
from trainctl.controller.agents.session import AgentSession
from trainctl.controller.cluster.port import AgentProcess
from trainctl.controller.domain.pace import heartbeat_s, is_news
from trainctl.controller.domain.view import AgentView, ClusterView
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What an agent said of itself (message ``RegisterRequest``); kept in the store under its node."""

    node: str
    address: str = ""
    pid: int = 0
    slots: int = 0
    version: str = ""
    metrics_address: str = ""
    device: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeMark:
    """What an operator said of a node; it outlives its agents.

    Attributes:
        cordoned: it gets no new work.
        draining: its workers are moved away, too.
    """

    cordoned: bool = False
    draining: bool = False


@dataclass(slots=True)
class Agent:
    """One agent life; the newest of its node. ``attended``: messages of it that are being dealt with."""

    registration: Registration
    incarnation: int
    heard_s: float
    attended: int = 0
    session: AgentSession | None = None
    reported: bool = False
    process_exited: bool = False
    store_address: str = ""
    workers: tuple[WorkerObserved, ...] = ()
    jobs: set[str] = field(default_factory=set)
    """Uids of those that it was told to run, since this controller leads."""
    certificate_ends_s: float = 0.0
    """Unix time at which the certificate of its newest session expires; 0: it needs none."""


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
        return ClusterView(agents=_LiveAgents(self, self._monotonic_s()), settled=settled, heartbeat_s=self.heartbeat_s)

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

    def newest(self, node: str) -> Agent | None:
        """The agent of a node, if one ever registered there."""
        return self._agents.get(node)

    def life(self, incarnation: int) -> Agent | None:
        """The agent life with this number, if it is the newest of its node."""
        return self._lives.get(incarnation)

    def view_of(self, agent: Agent, now_s: float) -> AgentView:
        """What reconcile sees of an agent, ``now_s`` on the clock that silence is measured on."""
        mark = self.mark_of(agent.registration.node)
        return AgentView(
            node=agent.registration.node,
            agent_incarnation=agent.incarnation,
            address=agent.registration.address,
            slots=agent.registration.slots,
            device=agent.registration.device or "cpu",
            connected=agent.session is not None and agent.reported,
            last_heard_age_s=0.0 if agent.attended else now_s - agent.heard_s,
            process_exited=agent.process_exited,
            store_address=agent.store_address,
            metrics_address=agent.registration.metrics_address,
            cordoned=mark.cordoned,
            draining=mark.draining,
            workers=agent.workers,
        )


class _LiveAgents:
    """Implements ``AgentViews`` by looking: right for as long as nobody else has a turn."""

    def __init__(self, registry: AgentRegistry, now_s: float) -> None:
        self._registry = registry
        self._now_s = now_s
        self._seen: dict[int, AgentView] = {}

    def __iter__(self) -> Iterator[AgentView]:
        """See ``AgentViews``."""
        return (self._see(agent) for agent in self._registry.agents())

    def get(self, agent_incarnation: int) -> AgentView | None:
        """See ``AgentViews``."""
        agent = self._registry.life(agent_incarnation)
        return self._see(agent) if agent is not None else None

    def newest(self, node: str) -> int:
        """See ``AgentViews``."""
        agent = self._registry.newest(node)
        return agent.incarnation if agent is not None else 0

    def _see(self, agent: Agent) -> AgentView:
        seen = self._seen.get(agent.incarnation)
        if seen is None:
            seen = self._seen[agent.incarnation] = self._registry.view_of(agent, self._now_s)
        return seen
