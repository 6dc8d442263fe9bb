"""What hooks hear and what records hold when workers are killed.

Without it a curve could have holes or doubled points after a recovery.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from multiproc.armed_faults import fault
from multiproc.toy import final_states, train
from multiproc.world import ProcessWorld
from trainctl.core.records.spec import CheckpointSpec, JobSpec, ResultsSpec

pytestmark = pytest.mark.multiproc

SIZE, STEPS = 3, 12
HOOK = "multiproc.recording_hooks:"


def make(
    folder: Path, *faults: dict[str, Any], hooks: tuple[str, ...] = (), interval: int = 0, **options: Any
) -> ProcessWorld:
    spec = JobSpec(
        checkpoint=CheckpointSpec(interval_steps=interval, background=False),
        results=ResultsSpec(hooks=tuple(f"{HOOK}{name}" for name in hooks)),
        env={"RECORDING_HOOKS": str(folder)},
    )
    return ProcessWorld(
        folder, SIZE, train, options={"steps": STEPS, "hidden": 30, **options}, spec=spec, faults=faults
    )


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "records" / "steps.jsonl").read_text().splitlines()]


def surviving(found: list[dict[str, Any]]) -> list[int]:
    """Steps that count, in the order of the file."""
    steps: list[int] = []
    for line in found:
        if line["event"] == "rollback":
            steps = [step for step in steps if step <= line["step"]]
        else:
            steps.append(line["step"])
    return steps


def heard(folder: Path, name: str) -> list[Mapping[str, Any]]:
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


def test_an_undisturbed_run_leaves_one_line_a_step_and_tells_hooks_everything(tmp_path: Path) -> None:
    with make(tmp_path, hooks=("Recording",), interval=4, evaluate_every=3) as w:
        w.run()
        expected = {f.step: f for f in w.figure_log}
    found = lines(tmp_path)
    assert [line["step"] for line in found] == list(range(1, STEPS + 1))
    for line in found:
        figure = expected[line["step"]]
        assert (line["loss"], line["sampleDigest"], line.get("evalLoss")) == (
            figure.loss,
            figure.sample_digest,
            figure.eval_loss,
        )
        assert line["tokensPerS"] == pytest.approx(figure.tokens / figure.step_s)
    calls = heard(tmp_path, "Recording")
    assert calls[0]["call"] == "start"
    assert [call["step"] for call in calls if call["call"] == "step"] == list(range(1, STEPS + 1))
    assert [call["step"] for call in calls if call["call"] == "evaluate"] == [3, 6, 9, 12]
    assert [call["step"] for call in calls if call["call"] == "checkpoint"] == [4, 8, 12]
    assert calls[-1] == {"call": "end", "step": STEPS, "reason": "finished", "pid": calls[0]["pid"]}
    assert len({call["pid"] for call in calls}) == 1, "only one worker reports"


@pytest.mark.parametrize("point", ["step.compute", "vote.before", "vote.after", "apply.in", "apply.after"])
def test_rank_0_killed_in_the_middle_leaves_no_hole_and_no_double(tmp_path: Path, point: str) -> None:
    with make(tmp_path, fault(point, slot=0, step=5), hooks=("Recording",), evaluate_every=5) as w:
        w.run()
        assert [life.slot for life in w.past] == [0]
    found = lines(tmp_path)
    assert [line["step"] for line in found] == list(range(1, STEPS + 1))
    assert [line["step"] for line in found if line.get("evalLoss") is not None] == [5, 10]
    calls = heard(tmp_path, "Recording")
    steps = [call["step"] for call in calls if call["call"] == "step"]
    assert sorted(set(steps)) == list(range(1, STEPS + 1))
    assert len(steps) <= STEPS + 1, "only a step that was being delivered may come twice"
    starts = [call for call in calls if call["call"] == "start"]
    assert len(starts) == 2
    assert starts[0]["pid"] != starts[1]["pid"]
    assert starts[1]["step"] in (3, 4, 5)
    assert [call["generation"] for call in calls if call["call"] == "recovery"] == [2]


def test_another_rank_killed_changes_nothing(tmp_path: Path) -> None:
    with make(tmp_path, fault("vote.after", slot=2, step=5), hooks=("Recording",)) as w:
        w.run()
    assert [line["step"] for line in lines(tmp_path)] == list(range(1, STEPS + 1))
    calls = heard(tmp_path, "Recording")
    assert len({call["pid"] for call in calls}) == 1
    assert [call["step"] for call in calls if call["call"] == "recovery"] in ([4], [5])


def test_shrink_and_grow_move_the_hooks_to_the_new_rank_0(tmp_path: Path) -> None:
    with make(tmp_path, fault("vote.in", slot=0, step=4), hooks=("Recording",), steps=40) as w:
        w.replace_lost = False
        w.propose(range(SIZE))
        w.until(lambda: any(f.step >= 7 for f in w.figure_log))
        assert sorted(w.lives) == [1, 2]
        w.grow(0)
        w.until(lambda: all(life.finished for life in w.members()))
        w.stop()
    assert [line["step"] for line in lines(tmp_path)] == list(range(1, 41))
    calls = heard(tmp_path, "Recording")
    assert sorted({call["step"] for call in calls if call["call"] == "step"}) == list(range(1, 41))
    assert [call["reason"] for call in calls if call["call"] == "end"] == ["moved", "finished"]
    assert len({call["pid"] for call in calls}) == 3


def test_steps_that_are_taken_back_are_marked(tmp_path: Path) -> None:
    everybody = [fault("vote.before", slot=slot, step=7) for slot in range(SIZE)]
    with make(tmp_path, *everybody, hooks=("Recording",), interval=4) as w:
        w.run()
    found = lines(tmp_path)
    marks = [line for line in found if line["event"] == "rollback"]
    assert [(mark["lineage"], mark["step"]) for mark in marks] == [(2, 4)]
    assert surviving(found) == list(range(1, STEPS + 1))
    before = found[: found.index(marks[0])]
    assert [line["step"] for line in before] in ([1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 6])
    assert {line["lineage"] for line in found[found.index(marks[0]) :]} == {2}


def test_a_hook_that_raises_is_switched_off_and_said_once(tmp_path: Path) -> None:
    with make(tmp_path, hooks=("Raising", "Recording")) as w:
        w.run()
        assert not w.past
        assert len(final_states(tmp_path, SIZE)) == 1
    assert [line["step"] for line in lines(tmp_path)] == list(range(1, STEPS + 1))
    assert [call["step"] for call in heard(tmp_path, "Recording") if call["call"] == "step"] == list(
        range(1, STEPS + 1)
    )
    assert len(heard(tmp_path, "Raising")) == 3, "no call after the third error"
    name = "hook multiproc.recording_hooks:Raising"
    assert w.notices == [
        f"{name} on_step raised ValueError: no, not step 1",
        f"{name} is switched off after 3 errors; training goes on",
    ]


def test_a_hook_that_hangs_holds_up_nobody(tmp_path: Path) -> None:
    with make(tmp_path, hooks=("Hanging", "Recording"), steps=60, interval=20) as w:
        w.run()
        assert max(f.step_s for f in w.figure_log) < 5
    assert [line["step"] for line in lines(tmp_path)] == list(range(1, 61))
    assert heard(tmp_path, "Recording")[-1]["call"] == "end"
    assert len(heard(tmp_path, "Hanging")) == 1
    assert [text for text in w.notices if "Hanging did not finish in its time" in text] == w.notices
    assert len(w.notices) == 1
