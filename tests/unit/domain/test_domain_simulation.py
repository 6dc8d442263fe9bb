"""Without it some order of faults and wishes could leave a job that never ends, or processes that nobody stops."""

from __future__ import annotations

import pytest

from trainctl.controller.domain.states import JobPhase
from trainctl.core.records.spec import NodesSpec
from unit.domain.domain_sim import Simulation, sim_job

SHAPES = (
    (NodesSpec(min=1, max=1), 4, 1, 4),
    (NodesSpec(min=1, max=2), 2, 2, 2),
    (NodesSpec(min=2, max=2), 2, 3, 2),
    (NodesSpec(min=1, max=4), 1, 4, 1),
)


@pytest.mark.parametrize("shape", range(len(SHAPES)))
@pytest.mark.parametrize("block", range(3))
def test_faults_in_any_order_keep_every_invariant_and_the_job_finishes(shape: int, block: int) -> None:
    nodes, per_node, agents, slots = SHAPES[shape]
    for seed in range(block * 8, block * 8 + 8):
        interval = ("", "auto", "3s")[seed % 3]
        sim = Simulation(seed, sim_job(nodes=nodes, per_node=per_node, interval=interval), agents=agents, slots=slots)
        assert sim.run().phase is JobPhase.SUCCEEDED, f"seed {seed}"


@pytest.mark.parametrize("shape", range(len(SHAPES)))
def test_a_cancel_at_any_moment_ends_cancelled_with_nobody_left(shape: int) -> None:
    nodes, per_node, agents, slots = SHAPES[shape]
    for seed in range(8):
        sim = Simulation(seed, sim_job(nodes=nodes, per_node=per_node, steps=10_000), agents=agents, slots=slots)
        cancel_at_s = sim.now_s + sim.rng.uniform(0.0, 30.0)
        while sim.now_s < cancel_at_s:
            sim.tick()
        sim.cancel()
        assert sim.run(limit_s=300.0).phase is JobPhase.CANCELLED, f"seed {seed}"
        assert not any(slot.bound for slot in sim.state.sole_island.slots)


@pytest.mark.parametrize("shape", range(len(SHAPES)))
@pytest.mark.parametrize("block", range(2))
def test_wishes_at_any_moment_under_faults_keep_every_invariant_and_the_job_finishes(shape: int, block: int) -> None:
    nodes, per_node, agents, slots = SHAPES[shape]
    seen: set[str] = set()
    for seed in range(block * 8, block * 8 + 8):
        job = sim_job(nodes=nodes, per_node=per_node, steps=150, interval=("", "2s")[seed // 2 % 2])
        faults = 0.0 if seed % 4 == 0 else None
        sim = Simulation(seed, job, agents=agents, slots=slots, fault_rate=faults, wish_rate=0.03)
        assert sim.run().phase is JobPhase.SUCCEEDED, f"seed {seed}"
        seen |= {event.type for event in sim.events}
    wanted = {"job.paused", "job.restarting", "job.scaled", "job.rollback_requested"}
    if agents > 1:
        wanted.add("job.resizing")
    assert wanted <= seen, f"never happened: {wanted - seen}"
