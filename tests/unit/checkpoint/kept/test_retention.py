"""What goes once the controller has said which checkpoint is current, and what never does, however late it is done.

Without it the checkpoint that a job needs could be removed, or none ever.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from trainctl.checkpoint.engine import CheckpointWriter
from trainctl.checkpoint.kept.catalog import survey
from trainctl.checkpoint.kept.damage import mark_damaged
from trainctl.checkpoint.kept.retention import retain
from trainctl.checkpoint.manifest.names import attempt_id, lineage_of
from trainctl.core.errors import DamagedCheckpointError
from trainctl.core.records.generation import CheckpointRef
from trainctl.core.system.faults import FaultPlan
from unit.checkpoint.completing import VALUES, completed
from unit.checkpoint.ranks import at_step, attempt, plain, save_parts

JOB = "job-a"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here loses power."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


def begun(uri: Path, step: int, *, lineage: int) -> str:
    """An attempt that is being written; its folder."""
    of, values = attempt(step, lineage=lineage, nonce="begun"), at_step(VALUES, step)
    save_parts(CheckpointWriter(str(uri), faults=FaultPlan()), values, plain(values, 2), of)
    return of.folder


def removed(uri: Path, keep: int, *kept: CheckpointRef) -> list[int]:
    """Steps that go when the controller's list is ``kept``, the current one last."""
    names = [ref.attempt for ref in kept]
    gone = retain(str(uri), job=JOB, keep=keep, current=names[-1], protect=frozenset(names))
    return sorted(int(folder.split("/")[0].removeprefix("step-")) for folder in gone)


def left(uri: Path) -> list[tuple[int, int]]:
    return sorted((info.ref.lineage, info.ref.step) for info in survey(str(uri)).checkpoints)


@pytest.mark.parametrize("keep", [1, 2])
def test_what_a_replaced_worker_completed_displaces_nothing(tmp_path: Path, keep: int) -> None:
    # Lineage 2 goes on from step 10 and has saved nothing; a worker of lineage 1 wakes up and completes more steps.
    five = completed(tmp_path, 5)
    ten = completed(tmp_path, 10, parent=five)
    for step in (20, 30):
        completed(tmp_path, step, parent=ten)
    assert removed(tmp_path, keep, *([five, ten][-keep:])) == [5][keep - 1 :]
    assert (1, 10) in left(tmp_path)
    newer = completed(tmp_path, 12, lineage=2, parent=ten)
    removed(tmp_path, keep, *([ten, newer][-keep:]))
    assert left(tmp_path) == [(1, 10), (2, 12)][-keep:], "what was rolled back goes before what the job stands on"


def test_who_acts_late_removes_nothing_of_a_later_lineage_complete_or_begun(tmp_path: Path) -> None:
    five = completed(tmp_path, 5)
    ten = completed(tmp_path, 10, parent=five)
    back = completed(tmp_path, 7, lineage=2, parent=five)  # it was rolled back to step 5
    theirs, stale = begun(tmp_path, 8, lineage=2), begun(tmp_path, 6, lineage=1)
    assert removed(tmp_path, 2, five, ten) == [6]
    assert left(tmp_path) == [(1, 5), (1, 10), (2, 7)]
    assert (tmp_path / theirs).exists()
    assert not (tmp_path / stale).exists()
    assert removed(tmp_path, 1, back) == [5, 10]


@pytest.mark.parametrize("how", ["missing", "short", "marked"])
def test_nothing_goes_for_a_current_one_that_is_not_whole(tmp_path: Path, how: str) -> None:
    old = completed(tmp_path, 5)
    new = completed(tmp_path, 10, parent=old)
    data = next(Path(new.uri).glob("data/*"))
    if how == "missing":
        data.unlink()
    elif how == "short":
        data.write_bytes(data.read_bytes()[:-1])
    else:
        mark_damaged(new, DamagedCheckpointError("bits"))
    assert removed(tmp_path, 1, new) == []
    assert left(tmp_path) == [(1, 5)]


def flip(ref: CheckpointRef) -> None:
    """Another bit in a data file; its size is right."""
    data = next(Path(ref.uri).glob("data/*"))
    content = bytearray(data.read_bytes())
    content[-1] ^= 1
    data.write_bytes(content)


@pytest.mark.parametrize("current", [True, False])
def test_one_that_would_be_left_alone_is_read_before_the_others_go(tmp_path: Path, current: bool) -> None:
    old = completed(tmp_path, 5)
    new = completed(tmp_path, 10, parent=old)
    flip(new)
    with pytest.raises(DamagedCheckpointError, match="do not have their checksum") as caught:
        retain(str(tmp_path), job=JOB, keep=1, current=new.attempt if current else "")
    assert caught.value.uri == new.uri
    assert left(tmp_path) == [(1, 5)]
    assert "do not have their checksum" in survey(str(tmp_path)).damaged[0].problem, "it is marked"
    newest = completed(tmp_path, 15, parent=new)
    assert removed(tmp_path, 1, newest) == [5, 10], "that one is right"


def test_what_stays_beside_another_one_is_not_read(tmp_path: Path) -> None:
    refs = [completed(tmp_path, 5)]
    for step in (10, 15):
        refs.append(completed(tmp_path, step, parent=refs[-1]))
    looked: list[CheckpointRef] = []

    def gone(keep: int, *kept: CheckpointRef) -> int:
        names = frozenset(ref.attempt for ref in kept)
        return len(retain(str(tmp_path), job=JOB, keep=keep, protect=names, check=looked.append))

    assert [gone(2), looked] == [1, []]
    assert [gone(1, refs[1]), looked] == [0, []], "what the controller still names stays"
    assert [gone(1), looked] == [1, [refs[2]]]
    assert [gone(1), looked] == [0, [refs[2]]], "nothing is to go"


@pytest.mark.parametrize("first", [True, False])
def test_of_two_attempts_of_its_step_the_current_one_stays(tmp_path: Path, first: bool) -> None:
    one, two = completed(tmp_path, 5, nonce="one"), completed(tmp_path, 5, nonce="two")
    current = one if first else two
    assert removed(tmp_path, 1, current) == [5]
    assert [info.ref for info in survey(str(tmp_path)).checkpoints] == [current]


def test_a_name_says_its_lineage_however_many_there_were() -> None:
    assert lineage_of(attempt_id("job", 3, lineage=7)) == 7
    assert lineage_of(attempt_id("job", 3, lineage=10**6)) == 16**4 - 1
    assert len(attempt_id("job", lineage=10**6)) == 16
    assert attempt_id("job", 1, lineage=1) != attempt_id("job", 2, lineage=1)


@dataclass
class Story:
    """A controller's list over time, and files that nobody removes but those who act on one of its lists."""

    uri: Path
    keep: int
    dice: random.Random
    lineage: int = 1
    step: int = 0
    checkpoints: list[CheckpointRef] = field(default_factory=list)
    lists: list[list[CheckpointRef]] = field(default_factory=list)
    begun: dict[int, str] = field(default_factory=dict)
    """Folders of attempts that the newest lineage is writing."""

    def saves(self) -> None:
        self.step += self.dice.randint(1, 3)
        parent = self.checkpoints[-1] if self.checkpoints else None
        ref = completed(self.uri, self.step, lineage=self.lineage, parent=parent)
        self.checkpoints = [*self.checkpoints, ref][-self.keep :]
        self.lists.append(list(self.checkpoints))

    def rolls_back(self) -> None:
        if self.checkpoints:
            at = self.dice.randrange(len(self.checkpoints))
            self.checkpoints = self.checkpoints[: at + 1]
            self.lineage, self.step = self.lineage + 1, self.checkpoints[-1].step
            self.begun.clear()

    def stale_writer_completes(self) -> None:
        if self.lineage > 1:
            completed(self.uri, self.dice.randint(1, 40), lineage=self.lineage - 1, nonce=str(self.dice.random()))

    def begins(self) -> None:
        self.begun[self.step + 1] = begun(self.uri, self.step + 1, lineage=self.lineage)

    def somebody_removes(self) -> None:
        if self.lists:
            removed(self.uri, self.keep, *self.dice.choice(self.lists))


@pytest.mark.parametrize("seed", range(12))
def test_whatever_list_somebody_acts_on_the_job_keeps_what_it_needs(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    story = Story(tmp_path, keep=dice.choice((1, 2, 3)), dice=dice)
    happens = (story.saves, story.saves, story.rolls_back, story.stale_writer_completes, story.begins)
    for _ in range(25):
        dice.choice((*happens, story.somebody_removes, story.somebody_removes))()
        whole = {info.ref for info in survey(str(tmp_path)).checkpoints}
        assert set(story.checkpoints) <= whole
        for step, folder in story.begun.items():
            if step > story.step:
                assert list((tmp_path / folder).glob("data/*")), "what is being written stays"
    story.saves()
    removed(tmp_path, story.keep, *story.checkpoints)
    assert len(left(tmp_path)) <= max(story.keep, len(story.checkpoints)), "and the rest goes in the end"
