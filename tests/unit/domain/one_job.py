"""One simulated job without faults of its own: how it is started, looked at and waited for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from trainctl.controller.domain.states import JobPhase
from trainctl.core.records.generation import GenerationRecord
from trainctl.core.records.spec import MaxRestartsSpec, NodesSpec
from unit.domain.domain_sim import Simulation, sim_job
from unit.domain.domain_sim_nodes import SimAgent, SimWorker


def start(nodes: int = 2, per_node: int = 2, agents: int = 2, steps: int = 400, least: int = 1) -> Simulation:
    job = sim_job(nodes=NodesSpec(min=least, max=nodes), per_node=per_node, steps=steps)
    sim = Simulation(7, job, agents=agents, slots=per_node, fault_rate=0.0)
    sim.until(JobPhase.RUNNING)
    return sim


def record(sim: Simulation) -> GenerationRecord:
    found = sim.state.sole_island.record
    assert found is not None
    return found


def wait_for(sim: Simulation, condition: Callable[[], bool], limit_s: float = 400.0) -> None:
    """Lets virtual time pass until it holds."""
    end_s = sim.now_s + limit_s
    while not condition():
        assert sim.now_s < end_s, f"{sim.state.phase}: {sim.state.message} {sim.state.checkpoint_interval or ''}"
        sim.tick()


def generation(sim: Simulation, number: int) -> None:
    wait_for(sim, lambda: record(sim).generation >= number and sim.state.sole_island.entered)


def worker(sim: Simulation, slot: int) -> SimWorker:
    incarnation = sim.state.sole_island.slots[slot].incarnation
    found = sim.cluster.find(incarnation)
    assert found is not None
    return found


def agent_of(sim: Simulation, slot: int) -> SimAgent:
    incarnation = sim.state.sole_island.slots[slot].agent_incarnation
    return next(a for a in sim.cluster.agents if a.incarnation == incarnation)


def trained(sim: Simulation, steps: int) -> None:
    wait_for(sim, lambda: worker(sim, 0).applied >= steps)


def limit_user(sim: Simulation, user: int, process: int = 1000) -> None:
    job = sim.state.spec
    recovery = replace(job.spec.recovery, max_restarts=MaxRestartsSpec(user=user, process=process))
    sim.state = replace(sim.state, spec=replace(job, spec=replace(job.spec, recovery=recovery)))
