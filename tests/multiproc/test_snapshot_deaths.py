"""Ranks of a model that nobody else has a copy of die: all go back to the last snapshot that all had completed.

Without it ranks could go back to different steps, or find that nobody kept the one they need.

Who dies while a snapshot is made is frozen first, at that very point, until the others have come to rest. Then it is
known what each node has, and so which step all have to go back to, when it is killed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from multiproc.armed_faults import fault
from multiproc.sharded_toy import LONG, STEPS, train
from multiproc.test_session_recovery import reached
from multiproc.test_session_sharded import check, run, surviving
from multiproc.test_snapshots_by_time import ALWAYS_S, NEVER_S
from multiproc.world import ProcessWorld
from trainctl.checkpoint.memory.node_memory import NodeMemory
from trainctl.core.records.generation import Rung
from trainctl.core.records.snapshot import SnapshotRef
from trainctl.core.records.spec import CheckpointSpec, JobSpec, RecoverySpec, SnapshotsSpec
from trainctl.core.records.step import StepFigures

pytestmark = [pytest.mark.multiproc, pytest.mark.timeout(150)]
NODES = ["a", "b", "c"]
SLOTS = range(len(NODES))
QUIET = 30
"""So many steps after all were told to make no more snapshots, none is on its way."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[int, StepFigures]:
    """What a run comes to, on however many ranks."""
    return run(tmp_path_factory.mktemp("undisturbed") / "run", 2, save_every=STEPS, **LONG)


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


def stopped(w: ProcessWorld) -> Iterator[int]:
    """Slots of workers that are frozen."""
    for slot, life in w.lives.items():
        if life.alive and Path(f"/proc/{life.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T":
            yield slot


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


@pytest.mark.parametrize(
    ("point", "where"),
    [
        pytest.param("checkpoint.write", {"rank": 0}, marks=pytest.mark.chaos),
        pytest.param("checkpoint.write", {"rank": 1}, marks=pytest.mark.chaos),
        ("snapshot.share", {"rank": 1}),
        pytest.param("snapshot.send", {"rank": 0, "message": 0}, marks=pytest.mark.chaos),
        ("snapshot.send", {"rank": 2, "message": 1}),
        pytest.param("snapshot.send", {"rank": 1, "message": 7}, marks=pytest.mark.chaos),
        pytest.param("snapshot.send", {"rank": 0, "message": 12}, marks=pytest.mark.chaos),
        pytest.param("snapshot.receive", {"rank": 1, "message": 0}, marks=pytest.mark.chaos),
        pytest.param("snapshot.receive", {"rank": 0, "message": 1}, marks=pytest.mark.chaos),
        ("snapshot.receive", {"rank": 2, "message": 7}),
        pytest.param("snapshot.receive", {"rank": 1, "message": 12}, marks=pytest.mark.chaos),
    ],
)
def test_who_dies_while_parts_are_written_or_copied(
    tmp_path: Path, undisturbed: dict[int, StepFigures], point: str, where: dict[str, int]
) -> None:
    """The third snapshot does not come to be; the second is the last that all completed, and all have kept it."""
    third = {**fault(point, "stop", **where), "skip": 2}
    with make(tmp_path, SnapshotsSpec(interval_steps=2), third) as w:
        w.propose(SLOTS)
        w.until(lambda: bool(list(stopped(w))))
        w.until(lambda: {len(refs) for refs in complete(w).values()} == {1})
        (last,) = {ref for refs in complete(w).values() for ref in refs}
        assert {made.made for _, made in w.snapshot_log} <= {1, 2}
        assert len(begun(w)) == 2, "the one that was on its way, besides"
        assert list(stopped(w)) == [where["rank"]]
        w.lives[where["rank"]].kill()
        went_back(w, last, undisturbed)


@pytest.mark.parametrize("point", [pytest.param("checkpoint.seal", marks=pytest.mark.chaos), "checkpoint.sealed"])
def test_who_dies_while_nodes_complete_a_snapshot(
    tmp_path: Path, undisturbed: dict[int, StepFigures], point: str
) -> None:
    """Every part of the third has been copied, and the others complete it; all keep the second until all have."""
    third = {**fault(point, "stop"), "skip": 2}
    with make(tmp_path, SnapshotsSpec(interval_steps=2), third) as w:
        w.propose(SLOTS)
        w.until(lambda: bool(list(stopped(w))))
        (slot,) = stopped(w)
        has = {node: 1 if slot == at and point == "checkpoint.seal" else 2 for at, node in enumerate(NODES)}
        w.until(lambda: {node: len(refs) for node, refs in complete(w).items()} == has)
        (kept,) = {refs[0] for refs in complete(w).values()}
        (last,) = {ref for refs in complete(w).values() for ref in refs} - {kept}
        assert last.step > kept.step
        w.lives[slot].kill()
        went_back(w, last, undisturbed)


@pytest.mark.parametrize(
    ("point", "slot"),
    [
        pytest.param("vote.in", 1, marks=pytest.mark.chaos),
        pytest.param("vote.in", 0, marks=pytest.mark.chaos),
        pytest.param("vote.after", 0, marks=pytest.mark.chaos),
        pytest.param("vote.after", 2, marks=pytest.mark.chaos),
        ("apply.in", 0),
        pytest.param("apply.in", 2, marks=pytest.mark.chaos),
    ],
)
def test_who_dies_between_vote_and_update_takes_the_step_with_it(
    tmp_path: Path, undisturbed: dict[int, StepFigures], point: str, slot: int
) -> None:
    """The others know the outcome, and may have applied it; nobody has the lost shard at that step."""
    now = tmp_path / "now"
    late = {**fault(point, slot=slot), "after": str(now)}
    with make(tmp_path, SnapshotsSpec(interval="auto"), late) as w:
        w.propose(SLOTS)
        last = last_of_all(w)
        now.touch()
        w.until(lambda: len(w.records) == 2)
        assert [life.slot for life in w.past] == [slot]
        went_back(w, last, undisturbed)
