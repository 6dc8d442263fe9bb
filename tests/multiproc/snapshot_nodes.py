"""Three ranks, each alone on its node: the snapshots that each node has, and the one that all go back to."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from multiproc.sharded_toy import LONG, train
from multiproc.sharded_world import check, surviving
from multiproc.snapshot_worlds import ALWAYS_S, NEVER_S
from multiproc.toy_world import reached
from multiproc.world import ProcessWorld
from trainctl.checkpoint.memory.node_memory import NodeMemory
from trainctl.core.records.generation import Rung
from trainctl.core.records.snapshot import SnapshotRef
from trainctl.core.records.spec import CheckpointSpec, JobSpec, RecoverySpec, SnapshotsSpec
from trainctl.core.records.step import StepFigures

NODES = ["a", "b", "c"]
SLOTS = range(len(NODES))
QUIET = 30
"""So many steps after all were told to make no more snapshots, none is on its way."""


def make(folder: Path, snapshots: SnapshotsSpec, *faults: Mapping[str, Any], **more: Any) -> ProcessWorld:
    """Each rank is alone on its node; its buddy is the next."""
    spec = JobSpec(
        checkpoint=CheckpointSpec(uri=str(folder / "saved"), interval_steps=0, snapshots=snapshots),
        recovery=RecoverySpec(profile="fast"),
    )
    options = {**LONG, "message_bytes": 1000, **more}
    return ProcessWorld(folder, len(NODES), train, options=options, spec=spec, nodes=NODES, faults=faults)


def complete(w: ProcessWorld) -> dict[str, list[SnapshotRef]]:
    """The snapshots that each node completed, and has its own part and its buddy's of, oldest first."""
    found = {node: NodeMemory(w.memory(node), "job-1").held() for node in NODES}
    parts = {"a": (0, 2), "b": (0, 1), "c": (1, 2)}
    return {node: [one.snapshot for one in held if one.held == parts[node]] for node, held in found.items()}


def begun(w: ProcessWorld) -> set[str]:
    """All attempts that are on any node."""
    return {attempt for node in NODES for attempt in NodeMemory(w.memory(node), "job-1").attempts()}


def last_of_all(w: ProcessWorld) -> SnapshotRef:
    """All nodes complete at least one more snapshot; the last one, when none is on its way and no more are begun."""
    before = {slot: made.made for slot, made in w.snapshots.items()}
    w.snapshot_every(dict.fromkeys(SLOTS, ALWAYS_S))
    w.until(lambda: all(slot in w.snapshots and w.snapshots[slot].made > before.get(slot, 0) for slot in SLOTS))
    w.snapshot_every(dict.fromkeys(SLOTS, NEVER_S))
    w.until(partial(reached, w, max(figure.step for figure in w.figure_log) + QUIET))
    assert len(begun(w)) == 1, "nothing is on its way"
    (last,) = {refs[-1] for refs in complete(w).values()}
    return last


def went_back(w: ProcessWorld, to: SnapshotRef, undisturbed: dict[int, StepFigures]) -> None:
    """All ranks loaded that snapshot, in one generation, and went on as if nothing had happened."""
    w.until(lambda: all(life.finished for life in w.members()))
    w.stop()
    _, record = w.records
    assert (record.rung, record.snapshot, record.target_step) == (Rung.SNAPSHOT, to, to.step)
    (load,) = [r.load for life in w.lives.values() for r in life.recoveries if r.load is not None]
    assert load.step == to.step
    assert [part.rank for part in load.parts] == list(SLOTS)
    assert len(w.past) == 1
    check(surviving(w), undisturbed)
