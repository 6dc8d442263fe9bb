"""Slots that no job uses.

Without it people would be told of room that is not there.
"""

import random

import pytest

from trainctl.controller.domain.view import AgentView, ListedAgents
from trainctl.controller.jobs.free_slots import FreeSlots


@pytest.mark.parametrize("seed", range(10))
def test_every_slot_is_free_or_used(seed: int) -> None:
    rng = random.Random(seed)
    agents = ListedAgents(AgentView(node=f"n{i}", agent_incarnation=i, slots=rng.randint(1, 9)) for i in range(1, 20))
    jobs = [{i: rng.randint(0, 3) for i in rng.sample(range(1, 25), 8)} for _ in range(5)]
    free = FreeSlots(agents, lambda: jobs)
    assert {agent.agent_incarnation for agent in agents} == set(free)
    assert len(free) == 19
    for agent in agents:
        used = sum(job.get(agent.agent_incarnation, 0) for job in jobs)
        assert free[agent.agent_incarnation] == agent.slots - used
    assert free.get(24, 0) == 0, "an agent that is not known has none"


def test_nothing_is_counted_before_somebody_asks() -> None:
    def uses() -> list[dict[int, int]]:
        raise AssertionError("counted")

    assert len(FreeSlots(ListedAgents([AgentView(node="n", agent_incarnation=1)]), uses)) == 1
