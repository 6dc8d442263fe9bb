"""Slots that no job uses; counted when somebody asks, which only a job does that looks for a place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

from trainctl.controller.domain.view import AgentViews


class FreeSlots(Mapping[int, int]):
    """Free slots by agent incarnation, as of the first question.

    Args:
        agents: with their slots.
        uses: gives for each job the slots that it occupies, by agent incarnation.
    """

    def __init__(self, agents: AgentViews, uses: Callable[[], Iterable[Mapping[int, int]]]) -> None:
        self._agents = agents
        self._uses = uses
        self._used: Counter[int] | None = None

    def __getitem__(self, agent_incarnation: int) -> int:
        agent = self._agents.get(agent_incarnation)
        if agent is None:
            raise KeyError(agent_incarnation)
        if self._used is None:
            self._used = Counter()
            for uses in self._uses():
                self._used.update(uses)
        return agent.slots - self._used[agent_incarnation]

    def __iter__(self) -> Iterator[int]:
        return (agent.agent_incarnation for agent in self._agents)

    def __len__(self) -> int:
        return sum(1 for _ in self._agents)
