"""What reconcile sees of the registered agents: each is looked at when somebody asks for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from trainctl.controller.agents.agent import Agent, NodeMark
from trainctl.controller.domain.view import AgentView

_NO_MARK = NodeMark()


class LiveAgents:
    """Implements ``AgentViews``: right for as long as nobody else has a turn.

    Args:
        agents: the newest life of each node.
        lives: the same, by incarnation.
        marks: what operators said of nodes.
        now_s: on the clock that silence is measured on.
    """

    def __init__(
        self, agents: Mapping[str, Agent], lives: Mapping[int, Agent], marks: Mapping[str, NodeMark], now_s: float
    ) -> None:
        self._agents = agents
        self._lives = lives
        self._marks = marks
        self._now_s = now_s
        self._seen: dict[int, AgentView] = {}

    def __iter__(self) -> Iterator[AgentView]:
        """See ``AgentViews``."""
        return (self._see(agent) for _, agent in sorted(self._agents.items()))

    def get(self, agent_incarnation: int) -> AgentView | None:
        """See ``AgentViews``."""
        seen = self._seen.get(agent_incarnation)
        if seen is None and (agent := self._lives.get(agent_incarnation)) is not None:
            return self._see(agent)
        return seen

    def newest(self, node: str) -> int:
        """See ``AgentViews``."""
        agent = self._agents.get(node)
        return agent.incarnation if agent is not None else 0

    @property
    def draining(self) -> frozenset[str]:
        """See ``AgentViews``."""
        return frozenset(node for node, mark in self._marks.items() if mark.draining)

    def _see(self, agent: Agent) -> AgentView:
        seen = self._seen.get(agent.incarnation)
        if seen is None:
            seen = self._seen[agent.incarnation] = self._view_of(agent)
        return seen

    def _view_of(self, agent: Agent) -> AgentView:
        mark = self._marks.get(agent.registration.node, _NO_MARK)
        return AgentView(
            node=agent.registration.node,
            agent_incarnation=agent.incarnation,
            address=agent.registration.address,
            slots=agent.registration.slots,
            device=agent.registration.device or "cpu",
            connected=agent.session is not None and agent.reported,
            last_heard_age_s=0.0 if agent.attended else self._now_s - agent.heard_s,
            process_exited=agent.process_exited,
            store_address=agent.store_address,
            metrics_address=agent.registration.metrics_address,
            cordoned=mark.cordoned,
            draining=mark.draining,
            workers=agent.workers,
        )
