"""How a save ends that nobody trains for any more: who completes it, what of it stays, and how long that may take.

Without it a checkpoint could be removed by the worker that was too late to complete it, a storage that hangs could hold
up every later checkpoint, or one that is quick be given up for the one before it.
"""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from trainctl.checkpoint.engine import CheckpointWriter
from trainctl.checkpoint.kept.catalog import newest
from trainctl.checkpoint.layout.layout import rank_holder
from trainctl.checkpoint.snapshot.background import PartOutcome
from trainctl.core.records.generation import CheckpointRef
from trainctl.core.records.spec import CheckpointSpec
from trainctl.core.records.worker import CheckpointReport
from trainctl.core.system.faults import FaultPlan
from trainctl.parallel.session import sealing
from trainctl.parallel.session.checkpoints import Checkpoints
from trainctl.parallel.session.sealing import Collected, Sealer, SealThread
from unit.checkpoint.completing import VALUES
from unit.checkpoint.ranks import at_step, attempt, plain, rank_state, save_parts
from unit.generation_records import generation_record
from waiting import PATIENCE_S, until

LIMIT_S = 120.0


def sealer_of(uri: Path, reports: list[CheckpointReport]) -> Sealer:
    checkpoints = Checkpoints(spec=CheckpointSpec(), uri=str(uri), faults=FaultPlan())
    return Sealer(
        checkpoints=checkpoints, record=generation_record(job_uid="job-a"), settle=lambda: None, report=reports.append
    )


def collected(uri: Path, step: int) -> Collected:
    """A save of two ranks whose parts are durable."""
    values = at_step(VALUES, step)
    parts = save_parts(CheckpointWriter(str(uri), faults=FaultPlan()), values, plain(values, 2), attempt(step))
    return Collected(
        attempt=attempt(step),
        state=rank_state(values, plain(values, 1), rank_holder(0)),
        parts=[PartOutcome(part, "", {}) for part in parts],
        began_s=0.0,
        stall_s=0.0,
        pool_bytes=0,
    )


def test_who_is_too_late_to_complete_a_save_leaves_the_checkpoint_and_does_not_report_it(tmp_path: Path) -> None:
    reports: list[CheckpointReport] = []
    save, sealer = collected(tmp_path, 3), sealer_of(tmp_path, reports)
    ref, errors = sealer.complete(save, None)
    assert (ref, errors) == (newest(str(tmp_path)), [])
    seal = sealer.begin(save, parent=None, before=None, changed=lambda: None)
    until(lambda: seal.over(LIMIT_S))
    (report,) = reports
    assert (seal.ref, report.ref, report.cause) == (None, None, "seal")
    assert report.error.endswith("expected to seal it, found it sealed by another process")
    assert newest(str(tmp_path)) == ref


def ref_of(step: int) -> CheckpointRef:
    return CheckpointRef(uri=f"/c/{step}", step=step, lineage=1, attempt=f"{step:016x}", manifest_sha256="")


class Seal:
    """One that ends when the test lets it."""

    def __init__(self, step: int, *, before: Seal | None = None) -> None:
        self.ref = ref_of(step)
        self.parents: list[CheckpointRef | None] = []
        self.turn, self.let, self.changed = threading.Event(), threading.Event(), threading.Event()
        self.failures: list[str] = []
        self.thread: SealThread = SealThread(
            self._seal,
            failed=self.failures.append,
            parent=ref_of(1),
            before=before.thread if before else None,
            changed=self.changed.set,
        )

    def _seal(self, parent: CheckpointRef | None) -> CheckpointRef | None:
        self.parents.append(parent)
        self.turn.set()
        assert self.let.wait(PATIENCE_S)
        return self.ref

    def end(self) -> None:
        self.let.set()
        assert self.changed.wait(PATIENCE_S)


class Time:
    """Stands still unless it is told otherwise."""

    now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    monkeypatch.setattr(sealing, "time", time)
    return time


def test_a_seal_that_hangs_is_given_up_once_and_what_it_brings_later_does_not_count(time: Time) -> None:
    seal = Seal(2)
    assert seal.turn.wait(PATIENCE_S)
    time.now_s += LIMIT_S
    assert not seal.thread.over(LIMIT_S)
    assert seal.failures == []
    time.now_s += 1.0
    assert seal.thread.over(LIMIT_S)
    assert seal.thread.over(LIMIT_S)
    assert seal.failures == ["sealing it took more than 120 s: the storage does not answer"]
    seal.end()
    assert (seal.thread.ref, seal.failures[1:]) == (None, [])


def test_the_next_one_waits_for_its_turn_and_has_all_the_time_from_then_on(time: Time) -> None:
    hangs = Seal(2)
    after = Seal(3, before=hangs)
    assert hangs.turn.wait(PATIENCE_S)
    time.now_s += LIMIT_S + 1.0
    assert not after.thread.over(LIMIT_S), "it is the one before that hangs"
    assert hangs.thread.over(LIMIT_S)
    assert not after.thread.over(LIMIT_S), "its turn begins now"
    assert after.turn.wait(PATIENCE_S)
    time.now_s += LIMIT_S
    assert not after.thread.over(LIMIT_S)
    after.end()
    assert after.thread.over(LIMIT_S)
    assert (after.thread.ref, after.failures, after.parents) == (after.ref, [], [ref_of(1)])
    hangs.end()


@pytest.mark.parametrize("how", ["seals", "fails"])
def test_a_seal_continues_what_was_sealed_before_it(how: str) -> None:
    before = Seal(2)
    after = Seal(3, before=before)
    if how == "fails":
        before.ref = None  # type: ignore[assignment]
    before.end()
    assert after.turn.wait(PATIENCE_S)
    assert after.parents == [ref_of(2 if how == "seals" else 1)]
    after.end()
