"""A writer that is frozen while it completes a checkpoint, is replaced, and wakes up: real processes.

Without it a writer that wakes up late could make a job go back to a past that it has left.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from multiproc.armed_faults import fault
from multiproc.life import Life
from multiproc.toy import final_states, train
from multiproc.world import ProcessWorld
from trainctl.checkpoint.kept.catalog import newest, survey
from trainctl.core.records.generation import CheckpointRef, Rung
from trainctl.core.records.spec import CheckpointKeepSpec, CheckpointSpec, JobSpec

pytestmark = pytest.mark.multiproc

SIZE, STEPS = 3, 12
POINTS = pytest.mark.parametrize("point", ["checkpoint.seal", "checkpoint.sealed"])
"""Before and after the root manifest makes the attempt complete; it is not reported yet."""


def make(folder: Path, *faults: dict[str, Any], keep: int = 1) -> ProcessWorld:
    # Training waits for each save, so which of them are complete where somebody freezes does not depend on the storage.
    saves = CheckpointSpec(interval_steps=2, keep=CheckpointKeepSpec(last=keep), background=False)
    spec = JobSpec(checkpoint=saves)
    options = {"steps": STEPS, "hidden": 40}
    return ProcessWorld(folder, SIZE, train, options=options, spec=spec, faults=faults)


def stops(point: str, **where: Any) -> dict[str, Any]:
    return fault(point, "stop", **where)


def frozen(life: Life) -> bool:
    return Path(f"/proc/{life.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def said(w: ProcessWorld, step: int, *, generation: int) -> str:
    """What became of what a generation saved of a step; empty as long as nobody has said anything."""
    reports = [report for report in w.checkpoints if (report.step, report.generation) == (step, generation)]
    refusals = [why for report, why in w.rejected if report in reports]
    return "" if not reports else refusals[0] if refusals else "failed" if reports[0].ref is None else "current"


def whole(folder: Path) -> set[CheckpointRef]:
    return {info.ref for info in survey(str(folder / "checkpoints")).checkpoints}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("undisturbed")
    with make(folder) as w:
        w.run()
        assert [ref.step for ref in w.current] == [2, 4, 6, 8, 10, 12]
        assert whole(folder) == {w.current[-1]}, "keep.last: 1"
        (state,) = final_states(folder, SIZE)
        return state


@POINTS
@pytest.mark.parametrize(
    ("until", "saved"),
    [(stops("rebuild.in", slot=1, generation=2), 2), (stops("step.compute", slot=1, step=11), 10)],
    ids=["nothing-saved-since", "saved-since"],
)
def test_a_writer_that_was_replaced_changes_nothing_for_those_who_went_on(
    tmp_path: Path, undisturbed: bytes, point: str, until: dict[str, Any], saved: int
) -> None:
    # Rank 0 freezes as it completes step 4; the others go on in the same lineage, until one of them freezes, too.
    with make(tmp_path, stops(point, step=4), until, keep=2) as w:
        w.propose(range(SIZE))
        late = w.lives[0]
        w.until(lambda: frozen(late))
        w.exclude([0])
        held = w.lives[1]
        w.until(lambda: len(w.records) == 2 and frozen(held))
        kept = w.current[-2:]
        assert kept[-1].step == saved
        os.kill(late.pid, signal.SIGCONT)
        w.until(lambda: said(w, 4, generation=1) != "")
        # What is not complete is garbage once a later step is current: it may be gone already.
        assert said(w, 4, generation=1) in {"OldGeneration", *(["failed"] if point == "checkpoint.seal" else [])}
        assert w.current[-2:] == kept
        assert set(kept) <= whole(tmp_path)
        if saved > 4:
            assert newest(str(tmp_path / "checkpoints")) == kept[-1], "nor without a controller"
        os.kill(held.pid, signal.SIGCONT)
        w.until(lambda: all(life.finished for life in w.members()))
        w.stop()
        assert final_states(tmp_path, SIZE) == {undisturbed}
        assert {record.lineage for record in w.records} == {1}
        assert whole(tmp_path) == set(w.current[-2:]), "what it completed is older, and went"


@POINTS
def test_it_takes_nothing_from_a_job_that_went_back_and_has_saved_nothing_since(
    tmp_path: Path, undisturbed: bytes, point: str
) -> None:
    # All are lost with rank 0 frozen: the job goes back to step 2. It has saved nothing when that one wakes up.
    with make(tmp_path, stops(point, step=4), stops("step.compute", slot=1, step=3, generation=2)) as w:
        w.propose(range(SIZE))
        late = w.lives[0]
        w.until(lambda: frozen(late))
        (two,) = w.current
        for life in (w.lives[1], w.lives[2]):
            life.kill()
        w.exclude(range(SIZE))
        w.until(lambda: len(w.records) == 2 and frozen(w.lives[1]))
        assert (w.records[1].rung, w.records[1].checkpoint) == (Rung.CHECKPOINT, two)
        os.kill(late.pid, signal.SIGCONT)
        w.until(lambda: said(w, 4, generation=1) != "")
        assert said(w, 4, generation=1) == "OldLineage"
        assert w.current == [two]
        assert two in whole(tmp_path), "the only one that the job can go back to"
        for life in w.members():  # so it does
            life.kill()
        w.until(lambda: all(life.finished for life in w.members()))
        w.stop()
        assert [record.checkpoint for record in w.records[1:]] == [two, two]
        assert final_states(tmp_path, SIZE) == {undisturbed}
        assert whole(tmp_path) == {w.current[-1]}
        assert (w.current[-1].lineage, w.current[-1].step) == (3, STEPS)
