"""Simulated jobs that have saved, lost all workers, and go back."""

from __future__ import annotations

from dataclasses import replace

from trainctl.controller.domain.submit import Resume, new_job
from trainctl.core.records.generation import CheckpointRef
from trainctl.core.records.spec import NodesSpec
from unit.domain.domain_sim import Simulation, sim_job
from unit.domain.one_job import limit_user, start, trained, wait_for
from unit.domain.sample_reports import ref_of

ALL = frozenset(range(4))


def saved(checkpoints: int) -> Simulation:
    """So many checkpoints are committed, a few steps have come after the newest, and no further one will."""
    sim = start()
    limit_user(sim, 0, process=0)
    keep = replace(sim.state.spec.spec.checkpoint, keep=replace(sim.state.spec.spec.checkpoint.keep, last=checkpoints))
    spec = replace(sim.state.spec, spec=replace(sim.state.spec.spec, checkpoint=keep))
    sim.state = replace(sim.state, spec=spec)
    wait_for(sim, lambda: len(sim.state.checkpoints) == checkpoints)
    trained(sim, sim.state.checkpoints[-1].step + 2)
    sim._checkpoints = lambda: None  # type: ignore[method-assign]
    return sim


def lose_all(sim: Simulation) -> None:
    """Every worker goes with its agent, which is charged to no budget."""
    for agent in list(sim.cluster.agents):
        sim.kill_agent(agent)


def condition(sim: Simulation, type_: str = "CheckpointStale") -> tuple[str, str, str]:
    return next((c.status, c.reason, c.message) for c in sim.state.conditions if c.type == type_)


def resumed(older: tuple[CheckpointRef, ...]) -> tuple[Simulation, CheckpointRef]:
    job = sim_job(nodes=NodesSpec(min=1, max=1), per_node=2)
    sim = Simulation(2, job, agents=1, slots=2, fault_rate=0.0)
    ref = ref_of(20, uri="mem://old/20", lineage=4, attempt="b")
    state, events = new_job("u1", job, workdir="w", now_s=sim.now_s, resume=Resume(ref=ref, older=older))
    assert [event.type for event in events] == ["job.submitted"]
    sim.state = state
    sim.cluster.damaged = {ref.uri: ALL}
    return sim, ref
