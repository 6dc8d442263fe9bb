"""Without it a job's records could lack a step, have one twice, or not say what was rolled back."""

from __future__ import annotations

import errno
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainctl.checkpoint.storage.local import LocalStorage
from trainctl.core.records.generation import Rung
from trainctl.core.records.spec import JobSpec
from trainctl.parallel.results.hook import Recovery, Run, RunEnd
from trainctl.parallel.results.steps_file import StepsFile
from unit.results.samples import figures


def opened(records: str) -> StepsFile:
    hook = StepsFile()
    hook.on_start(
        Run(job_uid="u", job_name="n", spec=JobSpec(), steps=9, step=0, lineage=1, generation=1, records=records)
    )
    return hook


def recovery(step: int, lineage: int) -> Recovery:
    return Recovery(generation=lineage, lineage=lineage, step=step, rung=Rung.CHECKPOINT, reason="", workers=2)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]


def positions(folder: Path) -> list[tuple[str, int, int]]:
    return [(line["event"], line["lineage"], line["step"]) for line in lines(folder)]


def test_the_file_tells_its_next_writer_how_far_it_came(tmp_path: Path) -> None:
    for steps in ((1, 2, 3), (2, 3, 4), (4, 5)):
        hook = opened(str(tmp_path))
        for step in steps:
            hook.on_step(figures(step))
        hook.flush()  # and is killed
    assert [step for _, _, step in positions(tmp_path)] == [1, 2, 3, 4, 5]


def test_lines_that_are_none_are_passed_over(tmp_path: Path) -> None:
    hook = opened(str(tmp_path))
    hook.on_step(figures(1))
    hook.flush()
    with (tmp_path / "steps.jsonl").open("ab") as file:
        file.write(b"[" * 9_000 + b'\n{"lineage": 1, "step": 1e999}\n')
    successor = opened(str(tmp_path))
    successor.on_step(figures(1))
    successor.on_step(figures(2))
    successor.flush()
    written = (tmp_path / "steps.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in (written[0], *written[3:])] == [1, 2]


def test_a_roll_back_is_marked_once_whoever_notices_it(tmp_path: Path) -> None:
    hook = opened(str(tmp_path))
    for step in range(1, 8):
        hook.on_step(figures(step))
    hook.flush()
    hook.on_recovery(recovery(7, 1))  # a peer's copy takes nothing back
    hook.on_recovery(recovery(4, 2))
    hook.on_step(figures(5, 2))
    hook.flush()
    assert positions(tmp_path)[7:] == [("rollback", 2, 4), ("step", 2, 5)]
    late = opened(str(tmp_path))  # its own recovery came when the run was ahead again
    late.on_recovery(recovery(6, 3))
    late.on_step(figures(3, 3))
    late.flush()
    assert positions(tmp_path)[9:] == [("rollback", 3, 2), ("step", 3, 3)]


@pytest.mark.parametrize("seed", range(8))
def test_one_line_for_each_surviving_step_after_random_deaths(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    hook, step, lineage = opened(str(tmp_path)), 0, 1
    for _ in range(120):
        step += 1
        hook.on_step(figures(step, lineage))
        if chance.random() < 0.7:
            hook.flush()
        fate = chance.random()
        if fate < 0.1:  # the reporter dies with what it had not written; survivors know the last steps
            hook = opened(str(tmp_path))
            hook.on_recovery(recovery(step, lineage))
            for known in range(max(1, step - 30), step + 1):
                hook.on_step(figures(known, lineage))
        elif fate < 0.15:  # all die: back to a checkpoint, before which the records were written
            hook.settle()
            target = chance.randrange(0, step + 1)
            hook, lineage, step = opened(str(tmp_path)), lineage + 1, target
            hook.on_recovery(recovery(target, lineage))
    hook.on_end(RunEnd(step=step, reason="finished"))
    surviving: list[int] = []
    for line in lines(tmp_path):
        if line["event"] == "rollback":
            surviving = [known for known in surviving if known <= line["step"]]
        else:
            surviving.append(line["step"])
    assert surviving == list(range(1, step + 1))


def test_a_full_storage_is_said_and_filled_in_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = True

    def append(self: LocalStorage, path: str, data: bytes, *, at: int) -> None:
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(self, path, data, at=at)

    whole: Callable[..., None] = LocalStorage.append
    monkeypatch.setattr(LocalStorage, "append", append)
    hook = opened(str(tmp_path))
    for step in (1, 2, 3):
        hook.on_step(figures(step))
        hook.flush()
    assert "No space left" in hook.trouble
    assert str(tmp_path) in hook.trouble
    assert not (tmp_path / "steps.jsonl").exists()
    full = False
    hook.on_step(figures(4))
    hook.settle()
    assert hook.trouble == ""
    assert [step for _, _, step in positions(tmp_path)] == [1, 2, 3, 4]


def test_a_second_writer_loses_no_line_and_doubles_none(tmp_path: Path) -> None:
    frozen, other = opened(str(tmp_path)), opened(str(tmp_path))
    frozen.on_step(figures(1))
    frozen.settle()
    for step in (1, 2, 3):
        other.on_step(figures(step))
    other.settle()
    frozen.on_step(figures(2))
    frozen.settle()
    assert frozen.trouble
    frozen.settle()
    assert [step for _, _, step in positions(tmp_path)] == [1, 2, 3]


def test_records_on_an_object_store(tmp_path: Path) -> None:
    hook = opened(f"local://{tmp_path}/bucket")
    for step in (1, 2):
        hook.on_step(figures(step, eval_loss=1.5))
        hook.flush()
    hook.on_end(RunEnd(step=2, reason="finished"))
    assert [step for _, _, step in positions(tmp_path / "bucket")] == [1, 2]
    first = lines(tmp_path / "bucket")[0]
    assert (first["evalLoss"], first["tokensPerS"], first["sampleDigest"]) == (1.5, pytest.approx(1000), 1)
