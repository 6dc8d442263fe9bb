"""Ranks of a model that nobody else has a copy of die: all go back to the last snapshot that all had completed.

Without it ranks could go back to different steps, or find that nobody kept the one they need.

Who dies while a snapshot is made is frozen first, at that very point, until the others have come to rest. Then it is
known what each node has, and so which step all have to go back to, when it is killed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from multiproc.armed_faults import fault
from multiproc.sharded_toy import LONG, STEPS
from multiproc.sharded_world import run
from multiproc.snapshot_nodes import NODES, SLOTS, begun, complete, last_of_all, make, went_back
from multiproc.world import ProcessWorld
from trainctl.core.records.spec import SnapshotsSpec
from trainctl.core.records.step import StepFigures

pytestmark = pytest.mark.multiproc


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[int, StepFigures]:
    """What a run comes to, on however many ranks."""
    return run(tmp_path_factory.mktemp("undisturbed") / "run", 2, save_every=STEPS, **LONG)


def stopped(w: ProcessWorld) -> Iterator[int]:
    """Slots of workers that are frozen."""
    for slot, life in w.lives.items():
        if life.alive and Path(f"/proc/{life.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T":
            yield slot


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
