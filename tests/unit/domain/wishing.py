"""People who ask something of a simulated job."""

from __future__ import annotations

from trainctl.controller.domain.reconcile import Reconciliation
from trainctl.controller.domain.states import JobPhase
from trainctl.core.records.spec import NodesSpec
from unit.domain.domain_sim import Simulation, sim_job
from unit.domain.one_job import wait_for


def start(nodes: int = 2, per_node: int = 2, agents: int = 2, steps: int = 400, least: int = 1) -> Simulation:
    job = sim_job(nodes=NodesSpec(min=least, max=nodes), per_node=per_node, steps=steps)
    sim = Simulation(11, job, agents=agents, slots=per_node, fault_rate=0.0)
    sim.until(JobPhase.RUNNING)
    wait_for(sim, lambda: sim.state.progress.step >= 9)
    return sim


def ask(sim: Simulation, result: Reconciliation) -> None:
    sim.persist(result)
