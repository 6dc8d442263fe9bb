"""The worker of rank 0 removes old checkpoints when the controller has said what is current, and never by itself.

Without it a worker could remove a checkpoint that the job has to go back to.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from trainctl.checkpoint.kept.catalog import survey
from trainctl.core.records.generation import CheckpointRef
from trainctl.core.records.spec import CheckpointKeepSpec, CheckpointSpec
from trainctl.core.records.worker import CheckpointReport, Instruction, WorkerDesired
from trainctl.core.system.faults import FaultPlan
from trainctl.parallel.session import read_back as read_back_module
from trainctl.parallel.session.checkpoints import Checkpoints
from trainctl.parallel.session.instructions import Instructions
from trainctl.parallel.session.old_checkpoints import OldCheckpoints
from unit.checkpoint.completing import completed
from unit.session.saving_runs import Keeping, Run
from waiting import PATIENCE_S

JOB = "job-a"


class Unheard(Keeping):
    """A controller that is away: nothing becomes current until it is back."""

    away = True

    def confirm(self) -> None:
        if not self.away:
            super().confirm()


class Late(Keeping):
    """A controller that says what is current only to who waits for it."""

    def confirm(self) -> None:
        """Not at once."""

    def wait_newer(self, than: int, timeout_s: float) -> WorkerDesired | None:
        super().confirm()
        return super().wait_newer(than, timeout_s)


def steps(folder: Path) -> list[int]:
    return sorted(info.ref.step for info in survey(str(folder)).checkpoints)


def test_nothing_goes_while_the_controller_is_away_and_the_rest_when_it_is_back(tmp_path: Path) -> None:
    run = Run(tmp_path, steps=8, interval=2, background=False, keep=2, control=Unheard)
    for _ in range(7):
        run.step()
    assert steps(tmp_path / "checkpoints") == [2, 4, 6]
    assert isinstance(run.control, Unheard)
    run.control.away = False
    run.to_the_end()
    assert steps(tmp_path / "checkpoints") == [6, 8], "also what the last one has made superfluous"


def test_before_a_worker_ends_it_waits_until_its_last_one_is_current_and_older_ones_are_gone(tmp_path: Path) -> None:
    run = Run(tmp_path, steps=4, interval=2, background=False, keep=1, control=Late)
    run.to_the_end()
    assert steps(tmp_path / "checkpoints") == [4]


def test_what_it_was_told_before_it_entered_its_generation_is_carried_out_then(tmp_path: Path) -> None:
    *_, last = Run(tmp_path, steps=4, interval=2, background=False).to_the_end()
    assert last.ref is not None
    assert steps(tmp_path / "checkpoints") == [2, 4]
    again = Run(tmp_path, steps=1, keep=1, control=Unheard)
    again.control._desired = replace(again.control.latest(), kept_checkpoints=(last.ref.attempt,))
    again.session._context.instructions._note(again.control.latest())
    again.to_the_end()
    assert steps(tmp_path / "checkpoints") == [1, 4]


def test_a_worker_ends_although_nobody_says_that_its_last_checkpoint_is_current(tmp_path: Path) -> None:
    run = Run(tmp_path, steps=4, interval=2, keep=1, control=Unheard)
    assert [report.step for report in run.to_the_end()] == [2, 4]
    assert steps(tmp_path / "checkpoints") == [2, 4]


class Told:
    """A worker in generation 3, with checkpoints of three steps, of which one is to be kept."""

    def __init__(self, folder: Path) -> None:
        self.control = Keeping(folder, CheckpointSpec())
        self.instructions = Instructions(self.control, touch=lambda: None)
        self.instructions.entered = 3
        parent = completed(folder, 2)
        self.refs = [parent, completed(folder, 4, parent=parent)]
        self.refs.append(completed(folder, 6, parent=self.refs[-1]))
        spec = CheckpointSpec(keep=CheckpointKeepSpec(last=1))
        means = Checkpoints(spec=spec, uri=str(folder), faults=FaultPlan())
        desired = replace(self.control.latest(), job_uid=JOB)
        self.said: list[CheckpointReport] = []
        self.old = OldCheckpoints(
            means, desired, self.instructions, tell=lambda message: self.said.append(message.report)
        )

    def hears(
        self,
        *kept: int,
        instruction: Instruction = Instruction.RUN,
        generation: int = 3,
        read_back: int | None = None,
    ) -> WorkerDesired:
        names = tuple(self.refs[index].attempt for index in kept)
        told = replace(self.control.latest(), instruction=instruction, generation=generation, kept_checkpoints=names)
        told = replace(told, read_back="" if read_back is None else self.refs[read_back].attempt)
        self.old.look(told)
        assert self.old._idle.wait(PATIENCE_S)
        return told


@pytest.mark.parametrize("instruction", [Instruction.RUN, Instruction.STOP])
def test_it_removes_what_is_older_than_the_current_one(tmp_path: Path, instruction: Instruction) -> None:
    told = Told(tmp_path)
    told.hears(1, instruction=instruction)
    assert steps(tmp_path) == [4, 6], "step 6 is not current"
    told.hears(0, 2, instruction=instruction)
    assert steps(tmp_path) == [6]


def test_what_the_job_goes_back_to_stays_beside_the_newest(tmp_path: Path) -> None:
    told = Told(tmp_path)
    told.hears(0, 2)
    assert steps(tmp_path) == [2, 6]


@pytest.mark.parametrize(
    "told",
    [
        lambda t: t.hears(2, generation=4),
        lambda t: t.hears(2, generation=2),
        lambda t: t.hears(2, instruction=Instruction.PREPARE),
        lambda t: t.hears(2, instruction=Instruction.KILL),
        lambda t: t.hears(),
    ],
    ids=["before-it-is-entered", "of-an-older-one", "on-the-way-to-the-next", "condemned", "nothing-is-current"],
)
def test_a_worker_removes_nothing_but_in_the_generation_that_it_is_in(
    tmp_path: Path, told: Callable[[Told], WorkerDesired]
) -> None:
    told(Told(tmp_path))
    assert steps(tmp_path) == [2, 4, 6]


def test_a_storage_that_refuses_costs_nothing_but_the_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "writer", _away)
        told.hears(1)
    assert steps(tmp_path) == [2, 4, 6]
    told.hears(2)
    assert steps(tmp_path) == [6], "the next time it goes"


def flip(ref: CheckpointRef) -> None:
    """Another bit in a data file; its size is right."""
    data = next(Path(ref.uri).glob("data/*"))
    content = bytearray(data.read_bytes())
    content[-1] ^= 1
    data.write_bytes(content)


def test_what_is_read_back_is_told_and_nothing_that_the_list_names_goes_before(tmp_path: Path) -> None:
    told = Told(tmp_path)
    told.hears(1, 2, read_back=2)
    assert steps(tmp_path) == [4, 6]
    (report,) = told.said
    assert (report.ref, report.read_back, report.error, report.generation) == (told.refs[2], True, "", 3)
    assert (report.step, report.lineage, report.job_uid, report.seconds > 0) == (6, 1, JOB, True)
    told.hears(2)
    assert steps(tmp_path) == [6]
    assert len(told.said) == 1


def test_a_generation_that_asks_again_hears_it_without_another_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told(tmp_path)
    told.hears(1, 2, read_back=2)
    told.instructions.entered = 4
    monkeypatch.setattr(read_back_module, "read_back", _away)
    told.hears(1, 2, read_back=2, generation=4)
    assert [(report.generation, report.error) for report in told.said] == [(3, ""), (4, "")]


def test_a_damaged_one_is_told_and_marked_and_the_one_before_stays(tmp_path: Path) -> None:
    told = Told(tmp_path)
    flip(told.refs[2])
    told.hears(1, 2, read_back=2)
    (report,) = told.said
    assert report.ref == told.refs[2]
    assert "do not have their checksum" in report.error
    assert steps(tmp_path) == [4], "whoever looks for the newest passes it over"
    told.hears(1)
    assert steps(tmp_path) == [4]
    assert Path(told.refs[2].uri).exists(), "somebody may want to look at it"


def test_whoever_tells_it_that_one_is_enough_that_one_is_read_first(tmp_path: Path) -> None:
    told = Told(tmp_path)
    flip(told.refs[2])
    told.hears(2)
    assert steps(tmp_path) == [2, 4], "a controller of an older version does not ask"
    assert not told.said


def test_a_checkpoint_that_is_not_there_is_not_said_to_be_damaged(tmp_path: Path) -> None:
    told = Told(tmp_path)
    shutil.rmtree(told.refs[2].uri)
    told.hears(1, 2, read_back=2)
    assert told.said == []
    assert steps(tmp_path) == [2, 4]


class Asking(Keeping):
    """As the controller does with ``keep.last: 1``: the one before stays until the newest was read back."""

    def confirm(self) -> None:
        saved = [report.ref for report in self.reports if report.ref and not report.read_back]
        right = [report.ref for report in self.reports if report.ref and report.read_back and not report.error]
        base = right[-1] if right else saved[0]
        after = [ref for ref in saved if ref.step > base.step]
        kept = tuple(ref.attempt for ref in (base, *after))
        told = replace(self.latest(), kept_checkpoints=kept, read_back=after[0].attempt if after else "")
        self._desired = told
        self.version += 1
        for callback in self._callbacks:
            callback(told)


@pytest.mark.parametrize("background", [True, False])
def test_before_a_worker_ends_its_last_one_is_read_back_and_the_one_before_goes(
    tmp_path: Path, background: bool
) -> None:
    run = Run(tmp_path, steps=6, interval=2, background=background, keep=1, control=Asking)
    reports = run.to_the_end()
    assert steps(tmp_path / "checkpoints") == [6]
    assert [report.step for report in reports if report.read_back][-1] == 6
    assert not any(report.error for report in reports)


def _away(_: object) -> None:
    raise OSError(5, "away")
