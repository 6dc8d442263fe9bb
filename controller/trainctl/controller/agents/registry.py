"""Who is there: registered agent lives, their sessions and newest observations, as one ``ClusterView``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager

from trainctl.controller import keys
from trainctl.controller.agents.agent import Agent, NodeMark, Registration
from trainctl.controller.agents.doubt import doubt_of
from trainctl.controller.agents.listening import Listening
from trainctl.controller.agents.live_agents import LiveAgents
from trainctl.controller.agents.session import AgentSession
from trainctl.controller.cluster.port import AgentProcess
from trainctl.controller.domain.pace import heartbeat_s, is_news
from trainctl.controller.domain.view import ClusterView
from trainctl.controller.leadership import Leadership
from trainctl.controller.settings import ORPHAN_TIMEOUT_S
from trainctl.controller.store.port import Compare, KeyValue, Operation, Put, Target
from trainctl.controller.stored import reading
from trainctl.core.codec import from_wire, to_wire
from trainctl.core.errors import FencedError, NotFoundError
from trainctl.core.records.worker import WorkerObserved
from trainctl.core.texts import quoted
from trainctl.protos.v1 import agent_pb2

EXCUSED_S = 10.0
"""Silence of one agent that may be put down to this controller's own deafness, in short turns of it."""


class StaleIncarnationError(FencedError):
    """The agent's life is over: it must end its workers and register anew."""

    code = "STALE_INCARNATION"


class AgentRegistry:
    """All agents, by node. Liveness is in memory only: heartbeats never touch the store.

    Args:
        monotonic_s: the clock that silence is measured on.
        settle_s: for so long after the start, unless every known agent reports before, no silence counts.
        orphan_timeout_s: after so long without a controller agents end their workers.

    Attributes:
        doubt: why the store may be an old copy, so that agents may live that it does not know of; empty if it is not.
            As long as there is doubt no silence counts at all.
        heartbeat_s: how often agents are to report; the more they are, the more rarely.
    """

    def __init__(
        self, monotonic_s: Callable[[], float], *, settle_s: float, orphan_timeout_s: float = ORPHAN_TIMEOUT_S
    ) -> None:
        self._monotonic_s = monotonic_s
        self._listening = Listening(monotonic_s, settle_s=settle_s, orphan_timeout_s=orphan_timeout_s)
        self._agents: dict[str, Agent] = {}
        self._lives: dict[int, Agent] = {}
        self._marks: dict[str, NodeMark] = {}
        self.doubt = ""
        self.heartbeat_s = heartbeat_s(0)

    def awake(self) -> None:
        """This process runs; called often. Notices that it was frozen, or that it hears nobody.

        Then it settles anew, like one that was started.
        """
        if self._listening.awake(self.heartbeat_s, self._expects_somebody):
            now_s = self._monotonic_s()
            for agent in self._agents.values():
                agent.heard_s = now_s
                agent.reported = False

    def deaf_for_s(self) -> float:
        """Seconds since this controller, which heard agents before, hears none of them; 0 if it does."""
        return self._listening.deaf_for_s()

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
        """Writes down what an operator says of a node, and what the caller adds; ``load_marks`` reads it.

        Raises:
            NotFoundError: no agent of that name ever registered.
            FencedError: this controller no longer leads.
        """
        if node not in self._agents:
            known = ", ".join(sorted(self._agents)) or "none yet"
            raise NotFoundError(
                f"no node {quoted(node)}; known nodes: {known}", hint="`trainctl nodes list` lists them"
            )
        put = Put(keys.node_mark(node), keys.encode(to_wire(mark)))
        await leadership.txn(compares, (put, *operations))

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
        self._begin(registration, result.revision).told = True
        self._keep_pace()
        if former is not None and former.session is not None:
            former.session.close(self.stale(registration.node, former.incarnation))
        return result.revision

    def find_doubt(self, node: str, *, incarnation: int, epoch: int, own_epoch: int) -> str:
        """See ``doubt_of``; what is found is kept in ``doubt``."""
        known = self._agents.get(node)
        found = doubt_of(known, node=node, incarnation=incarnation, epoch=epoch, own_epoch=own_epoch)
        self.doubt = found or self.doubt
        return found

    def open(
        self, node: str, incarnation: int, write_desired: Callable[[agent_pb2.AgentDesired], None]
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
        agent.session, agent.told = AgentSession(node, incarnation, write_desired, self._monotonic_s), True
        self._heard(agent)
        agent.reported = False
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

    def hearing(self, agent: Agent) -> AbstractContextManager[None]:
        """For blocks in which a message of the agent is dealt with, one after the other.

        Nobody listens to it meanwhile, perhaps because the store is away, so its silence is no evidence.
        """
        return _Hearing(self, agent)

    def begin_hearing(self, agent: Agent) -> None:
        """A message of the agent came."""
        self._heard(agent)
        agent.attended += 1

    def end_hearing(self, agent: Agent) -> None:
        """The message was dealt with."""
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
        return self._listening.unsettled_for_s(self._all_reported)

    def view(self) -> ClusterView:
        """What reconcile sees."""
        self.awake()
        return ClusterView(
            agents=LiveAgents(self._agents, self._lives, self._marks, self._monotonic_s()),
            settled=self._listening.settled(self._all_reported) and not self.doubt,
            heartbeat_s=self.heartbeat_s,
        )

    @staticmethod
    def stale(node: str, incarnation: int) -> StaleIncarnationError:
        """The error that tells an agent that its life is over."""
        return StaleIncarnationError(
            f"agent incarnation {incarnation} of {node} is over: unknown here, or replaced by a newer one",
            hint="the agent ends its workers and registers anew",
        )

    def _begin(self, registration: Registration, incarnation: int) -> Agent:
        former = self._agents.get(registration.node)
        if former is not None:
            self._lives.pop(former.incarnation, None)
        agent = Agent(registration, incarnation, self._monotonic_s())
        self._agents[registration.node] = self._lives[incarnation] = agent
        return agent

    def _keep_pace(self) -> None:
        """Tells everybody when agents are to report more rarely; never more often again, as long as this one leads."""
        period_s = heartbeat_s(len(self._agents))
        if period_s > self.heartbeat_s:
            self.heartbeat_s = period_s
            for session in self.sessions():
                session.desire()

    def _heard(self, agent: Agent) -> None:
        unheard_s = self._listening.heard()
        if self._listening.deaf:  # what it says now belongs to the time after that
            self.awake()
        elif unheard_s:  # too short to call that deaf, but what adds up of it is no silence of the others either
            for other in self._agents.values():
                self._excuse(other, unheard_s)
        agent.heard_s, agent.excused_s = self._monotonic_s(), 0.0

    def _excuse(self, agent: Agent, unheard_s: float) -> None:
        """Not for ever: where few agents live, and those are slow, nobody would ever notice that another one died."""
        excused_s = min(unheard_s, self._monotonic_s() - agent.heard_s, EXCUSED_S - agent.excused_s)
        agent.heard_s += excused_s
        agent.excused_s += excused_s

    def _all_reported(self) -> bool:
        return all(agent.reported or agent.process_exited for agent in self._agents.values())

    def _expects_somebody(self) -> bool:
        """Some agents should be there, and nobody's message is being dealt with."""
        expected = [agent for agent in self._agents.values() if not agent.process_exited]
        return bool(expected) and not any(agent.attended for agent in expected)


class _Hearing(AbstractContextManager[None]):
    """Entered once for each message: thousands of times a second, so it is no generator."""

    __slots__ = ("_agent", "_agents")

    def __init__(self, agents: AgentRegistry, agent: Agent) -> None:
        self._agents = agents
        self._agent = agent

    def __enter__(self) -> None:
        self._agents.begin_hearing(self._agent)

    def __exit__(self, *_: object) -> None:
        self._agents.end_hearing(self._agent)
