"""Simulated jobs that choose their times by what fails."""

from __future__ import annotations

from trainctl.controller.domain.save_interval import CheckpointInterval
from trainctl.controller.domain.states import JobPhase
from trainctl.core.records.spec import NodesSpec
from unit.domain.domain_sim import Simulation, sim_job
from unit.domain.one_job import wait_for

DAY_S = 86400.0


def started(interval: str, *, agents: int = 2, snapshots: str = "") -> Simulation:
    nodes = NodesSpec(min=1, max=agents)
    job = sim_job(nodes=nodes, per_node=2, steps=100_000, interval=interval, snapshots=snapshots)
    sim = Simulation(7, job, agents=agents, slots=2, fault_rate=0.0)
    sim.cluster.stall_s, sim.cluster.save_s = 0.5, 4.0
    sim.until(JobPhase.RUNNING)
    return sim


def interval(sim: Simulation) -> CheckpointInterval:
    found = sim.state.checkpoint_interval
    assert found is not None
    return found


def fails(sim: Simulation) -> None:
    """A worker is killed, and replaced."""
    count = sim.state.recovery_count
    wait_for(sim, lambda: all(island.entered for island in sim.state.islands) and sim.state.sole_island.marks is None)
    next(worker for worker in sim.cluster.workers() if worker.alive).end(-9, sim.now_s)
    wait_for(sim, lambda: sim.state.recovery_count > count and sim.state.sole_island.marks is None)


def passes(sim: Simulation, time_s: float) -> None:
    """Everybody is well all the time."""
    sim.now_s += time_s
    for agent in sim.cluster.agents:
        agent.heard_s = sim.now_s
    for _ in range(20):
        sim.tick()
