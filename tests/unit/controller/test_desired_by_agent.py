"""Who has to be told after a change, and what: nobody is told twice, and nobody is left with what is over.

Without it a worker could go on that nobody wants any more.
"""

from __future__ import annotations

from dataclasses import replace

from trainctl.controller.desired_by_agent import DesiredByAgent
from trainctl.controller.domain.job_state import JobState
from trainctl.controller.domain.states import JobPhase
from trainctl.core.records.spec import NodesSpec
from trainctl.protos.v1 import agent_pb2
from unit.domain.domain_sim import Simulation, sim_job


def running() -> JobState:
    sim = Simulation(7, sim_job(nodes=NodesSpec(min=2, max=2), per_node=2, steps=400), agents=2, slots=2, fault_rate=0)
    sim.until(JobPhase.RUNNING)
    return sim.state


def slots_told(desired: DesiredByAgent, agent: int) -> list[tuple[str, int]]:
    message = agent_pb2.AgentDesired()
    desired.write(agent, message)
    return [(worker.job_uid, worker.slot) for worker in message.workers]


def test_only_agents_with_something_new_to_do_are_told() -> None:
    state = running()
    first, second = sorted({slot.agent_incarnation for slot in state.sole_island.slots})
    desired = DesiredByAgent()
    assert desired.follow(state) == {first, second}
    assert slots_told(desired, first) == [(state.uid, 0), (state.uid, 1)]
    further = replace(state, progress=replace(state.progress, step=state.progress.step + 1))
    assert not desired.follow(further), "a step is no instruction"
    island = state.sole_island
    renewed = replace(island.slots[3], incarnation=island.slots[3].incarnation + 100)
    assert desired.follow(state.with_island(island.with_slot(renewed))) == {second}
    assert desired.follow(replace(state, phase=JobPhase.SUCCEEDED)) == {first, second}
    assert slots_told(desired, first) == []


def test_an_agent_is_told_of_all_its_jobs() -> None:
    one = running()
    other = replace(one, uid="another")
    desired = DesiredByAgent()
    desired.follow(one)
    desired.follow(other)
    agent = one.sole_island.slots[0].agent_incarnation
    assert slots_told(desired, agent) == [(one.uid, 0), (one.uid, 1), ("another", 0), ("another", 1)]
    desired.follow(replace(one, phase=JobPhase.FAILED))
    assert slots_told(desired, agent) == [("another", 0), ("another", 1)]
