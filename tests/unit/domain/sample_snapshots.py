"""Snapshots as workers tell of them."""

from __future__ import annotations

from trainctl.core.records.snapshot import SnapshotHeld, SnapshotRef, SnapshotsMade
from unit.domain.domain_sim import Simulation
from unit.domain.one_job import record, wait_for, worker

MIB = 1 << 20


def held(step: int, *parts: int, of: int = 4, lineage: int = 1) -> SnapshotHeld:
    ref = SnapshotRef(lineage=lineage, step=step, attempt=f"{lineage}-{step}")
    return SnapshotHeld(snapshot=ref, parts=of, held=parts, size_bytes=len(parts) * MIB)


def made(newest: SnapshotHeld | None, count: int, *, generation: int = 1, **more: str | float) -> SnapshotsMade:
    return SnapshotsMade(generation=generation, made=count, newest=newest, **more)  # type: ignore[arg-type]


def snapshot(
    sim: Simulation, *, copies: bool = True, stall_s: tuple[float, float] = (0.0, 0.0), seconds: float = 0.0
) -> SnapshotRef:
    """Both nodes complete one of the newest step, and tell; how long training waited, by node."""
    step = max(one.applied for one in sim.cluster.workers())
    own = {"node-0": (0, 1), "node-1": (2, 3)}
    parts = {node: (0, 1, 2, 3) if copies else own[node] for node in own}
    sim.cluster.in_memory = {node: (held(step, *parts[node]),) for node in own}
    for slot, waited_s in zip((0, 2), stall_s, strict=True):
        first, g = worker(sim, slot), record(sim).generation
        (here,) = sim.cluster.in_memory[sim.cluster.node_of(first)]
        count = (first.snapshots.made if first.snapshots else 0) + 1
        first.snapshots = made(here, count, generation=g, age_s=0.5, stall_s=waited_s, seconds=seconds)
    wait_for(sim, lambda: sim.state.snapshot_figures.newest == held(step).snapshot)
    return held(step).snapshot
