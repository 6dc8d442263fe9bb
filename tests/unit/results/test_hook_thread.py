"""Without it a slow, hanging or raising hook could hold up training, or hear a step twice after a restart."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from trainctl.core.records.spec import JobSpec
from trainctl.parallel.results.delivered import START, DeliveredFile, Forgetful
from trainctl.parallel.results.hook import Hook, Run, RunEnd
from trainctl.parallel.results.hook_thread import MAX_WAITING, HookThread
from unit.results.samples import figures
from waiting import PATIENCE_S

RUN = Run(job_uid="u", job_name="n", spec=JobSpec(), steps=9, step=0, lineage=1, generation=1, records="")


class Steps(Hook):
    """Keeps what it is told; waits for ``gate`` in every step."""

    def __init__(self, gate: threading.Event | None = None) -> None:
        self.gate = gate
        self.seen: list[tuple[int, int]] = []
        self.began: list[tuple[int, int]] = []
        self.entered = threading.Event()

    def on_start(self, run: Run) -> None:
        self.began.append((run.lineage, run.step))

    def on_step(self, figures: object) -> None:
        self.entered.set()
        if self.gate is not None:
            assert self.gate.wait(PATIENCE_S)
        self.seen.append((figures.lineage, figures.step))  # type: ignore[attr-defined]


def thread_of(make: Callable[[], Hook], said: list[str], records: Path | None = None) -> HookThread:
    delivered = DeliveredFile(str(records), "h") if records else Forgetful()
    return HookThread("h", make, delivered, lambda name, text: said.append(f"{name} {text}"))


def finish(thread: HookThread) -> None:
    assert thread.wait(PATIENCE_S)
    thread.end()
    thread.join(PATIENCE_S)


def test_a_successor_goes_on_where_the_last_one_stopped(tmp_path: Path) -> None:
    first, second = Steps(), Steps()
    for hook, steps in ((first, (1, 2, 3)), (second, (2, 3, 4))):
        thread = thread_of(lambda hook=hook: hook, [], tmp_path)  # type: ignore[misc]
        thread.put(RUN)
        for step in steps:
            thread.put(figures(step))
        finish(thread)
    assert (first.began, second.began) == ([START], [(1, 3)])
    assert first.seen + second.seen == [(1, 1), (1, 2), (1, 3), (1, 4)]


def test_steps_of_a_new_lineage_come_again(tmp_path: Path) -> None:
    hook = Steps()
    thread = thread_of(lambda: hook, [], tmp_path)
    for one in (figures(1), figures(2), figures(2, lineage=2), figures(2), figures(3, lineage=2)):
        thread.put(one)
    finish(thread)
    assert hook.seen == [(1, 1), (1, 2), (2, 2), (2, 3)]


def test_a_records_folder_that_cannot_be_written_costs_nothing(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    hook, said = Steps(), list[str]()
    thread = thread_of(lambda: hook, said, blocked)
    thread.put(RUN)
    thread.put(figures(1))
    finish(thread)
    assert hook.seen == [(1, 1)]
    assert said == []


def test_a_slow_hook_loses_the_oldest_calls_and_is_said_once() -> None:
    gate, said = threading.Event(), list[str]()
    hook = Steps(gate)
    thread = thread_of(lambda: hook, said)
    thread.put(figures(1))
    assert hook.entered.wait(PATIENCE_S)
    for step in range(2, MAX_WAITING + 12):
        thread.put(figures(step))
    assert not thread.wait(0.01)
    gate.set()
    finish(thread)
    assert hook.seen[0] == (1, 1)
    assert [step for _, step in hook.seen[1:]] == list(range(12, MAX_WAITING + 12))
    assert len(said) == 1
    assert said[0].startswith(f"h is more than {MAX_WAITING} calls behind")


def test_what_is_put_later_is_not_waited_for() -> None:
    """Steps go on while a checkpoint waits for the records of its own."""
    thread: HookThread

    class Endless(Steps):
        def on_step(self, found: object) -> None:
            super().on_step(found)
            if len(self.seen) < 10_000:
                thread.put(figures(len(self.seen) + 1))

    hook = Endless()
    thread = thread_of(lambda: hook, [])
    thread.put(figures(1))
    assert thread.wait(PATIENCE_S)
    assert 1 <= len(hook.seen) < 10_000
    thread.end()
    thread.join(PATIENCE_S)


def test_a_hook_that_hangs_is_left_behind() -> None:
    gate, said = threading.Event(), list[str]()
    hook = Steps(gate)
    thread = thread_of(lambda: hook, said)
    thread.put(figures(1))
    assert hook.entered.wait(PATIENCE_S)
    thread.end()
    thread.join(0.01)
    assert said == ["h did not finish in its time: what it had not written is lost"]
    gate.set()


@pytest.mark.parametrize("error", [ValueError("bad"), SystemExit(3), KeyboardInterrupt()])
def test_whatever_a_hook_raises_it_is_switched_off_after_three(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[int] = []

    class Bad(Hook):
        def on_step(self, figures: object) -> None:
            calls.append(1)
            raise error

    said: list[str] = []
    thread = thread_of(Bad, said)
    for step in range(1, 10):
        thread.put(figures(step))
    finish(thread)
    assert len(calls) == 3
    assert "in on_step" in caplog.text
    assert "in _guard" not in caplog.text, "its traceback begins with the code of the hook"
    assert [text.split(":")[0] for text in said] == [
        f"h on_step raised {type(error).__name__}",
        "h is switched off after 3 errors; training goes on",
    ]


def test_a_hook_that_cannot_be_made_is_said_and_off() -> None:
    said: list[str] = []

    def make() -> Hook:
        raise RuntimeError("no server")

    thread = thread_of(make, said)
    thread.put(RUN)
    thread.put(RunEnd(step=1, reason="finished"))
    finish(thread)
    assert said == ["h making it raised RuntimeError: no server"]
