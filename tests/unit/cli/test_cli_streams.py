import io
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainctl.cli.main import main
from trainctl.cli.positions import EventPosition
from trainctl.protos.v1.job_pb2 import Event
from unit.cli.conftest import Cli
from unit.cli.fake_controller import FakeController


def until(condition: Callable[[], bool], deadline_s: float = 20) -> None:
    end_s = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end_s, "not in time"
        time.sleep(0.01)


class Running:
    """A command in a thread, with what it has printed so far."""

    def __init__(self, environment: dict[str, str], *arguments: str) -> None:
        self.out, self.err = io.StringIO(), io.StringIO()
        self.code = -1
        self._thread = threading.Thread(target=self._run, args=(environment, arguments), daemon=True)
        self._thread.start()

    def _run(self, environment: dict[str, str], arguments: tuple[str, ...]) -> None:
        self.code = main(arguments, out=self.out, err=self.err, env=environment)

    def shows(self, text: str) -> None:
        until(lambda: text in self.out.getvalue() or not self._thread.is_alive())
        assert text in self.out.getvalue(), self.err.getvalue()

    def wait(self) -> None:
        self._thread.join(30)
        assert not self._thread.is_alive()


def finish(controller: FakeController, name: str, phase: str) -> None:
    controller.add_event(f"job.{phase.lower()}", f"the job is {phase}", to=phase)
    controller.jobs[name].status.phase = phase


def test_watch_goes_on_over_a_restart_and_shows_nothing_twice(
    controller: FakeController, environment: dict[str, str]
) -> None:
    controller.add_job("a", step=3, total_steps=10)
    controller.add_event("job.submitted", "event one", revision=5)
    controller.add_event("worker.starting", "event two", revision=5)
    running = Running(environment, "watch", "a")
    running.shows("event two")
    controller.stop()
    until(lambda: "controller is away" in running.err.getvalue())
    controller.add_event("worker.exited", "event three", revision=7)  # written while nobody watched
    controller.start()
    running.shows("event three")
    finish(controller, "a", "SUCCEEDED")
    running.wait()
    assert running.code == 0
    shown = running.out.getvalue()
    assert [shown.count(f"event {word}") for word in ("one", "two", "three")] == [1, 1, 1]
    assert shown.count("the job is SUCCEEDED") == 1
    assert running.err.getvalue().count("the controller is away; the job goes on") == 1
    assert running.err.getvalue().count("the controller is back") == 1


def test_events_watch_goes_on_over_a_restart(controller: FakeController, environment: dict[str, str]) -> None:
    controller.add_job("a")
    controller.add_event("job.submitted", "event one")
    running = Running(environment, "events", "a", "-w", "-o", "json")
    running.shows("event one")
    controller.stop()
    controller.add_event("worker.exited", "event two")
    controller.start()
    running.shows("event two")
    controller.add_event("worker.ready", "event three")
    finish(controller, "a", "FAILED")
    running.wait()
    assert running.code == 0
    messages = [json.loads(line)["message"] for line in running.out.getvalue().splitlines()]
    assert messages == ["event one", "event two", "event three", "the job is FAILED"]


def test_followed_logs_go_on_over_a_restart(controller: FakeController, environment: dict[str, str]) -> None:
    controller.add_job("a")
    controller.logs = {(0, 1): [f"a{i}" for i in range(300)], (1, 2): ["same"] * 5}
    running = Running(environment, "logs", "a", "-f", "--tail", "10")
    running.shows("1| same")
    running.shows("0| a299")
    controller.stop()
    controller.logs[0, 1] += ["a300", "a301"]
    controller.logs[1, 2] += ["b"]
    controller.logs[1, 9] = ["a new life"]
    controller.start()
    running.shows("1| a new life")
    controller.logs[0, 1] += ["a302"]
    running.shows("a302")
    finish(controller, "a", "FAILED")
    running.wait()
    assert running.code == 8
    lines = running.out.getvalue().splitlines()
    assert [line for line in lines if line.startswith("0|")] == [f"0| a{i}" for i in range(290, 303)]
    assert [line for line in lines if line.startswith("1|")] == ["1| same"] * 5 + ["1| b", "1| a new life"]


def test_logs_pick_slots_ranks_and_tail(cli: Cli, controller: FakeController) -> None:
    job = controller.add_job("a")
    island = job.status.islands.add(id="island-0", generation=1)
    for slot, rank in ((0, 1), (1, 0), (2, -1)):
        island.workers.add(slot=slot, global_rank=rank, pid=10 + slot)
    controller.logs = {(slot, slot + 1): [f"s{slot} {i}" for i in range(5)] for slot in range(3)}
    assert cli("logs", "a", "--tail", "1").out == "0| s0 4\n1| s1 4\n2| s2 4\n"
    assert cli("logs", "a", "--slot", "0,2-2", "--tail", "1").out == "0| s0 4\n2| s2 4\n"
    assert cli("logs", "a", "--rank", "1", "--tail", "2").out == "s0 3\ns0 4\n"
    assert json.loads(cli("logs", "a", "--rank", "0", "--tail", "1", "-o", "json").out)["line"] == "s1 4"
    missing = cli("logs", "a", "--rank", "0-2")
    assert missing.code == 3
    assert "no rank 2; it has 0, 1" in missing.err
    for wrong in ("x", "3-1", "0,,1", "0-999999"):
        assert cli("logs", "a", "--slot", wrong).code == 2
    assert cli("logs", "a", "--tail", "0").code == 2


def test_following_an_ended_job_shows_its_end(cli: Cli, controller: FakeController) -> None:
    controller.add_job("a", "CANCELLED", step=2, total_steps=9)
    controller.add_event("job.cancelled", "it was cancelled", to="CANCELLED")
    controller.logs = {(0, 1): ["bye"]}
    watched = cli("watch", "a")
    assert watched.code == 9
    assert "job a CANCELLED after" in watched.out
    assert cli("logs", "a", "-f").code == 9
    assert cli("events", "a", "-w").out.count("it was cancelled") == 1
    assert cli("watch", "nothing").code == 3


def test_ctrl_c_detaches_and_says_how_to_come_back(
    controller: FakeController, environment: dict[str, str], tmp_path: Path
) -> None:
    controller.add_job("a", step=1, total_steps=9)
    controller.add_event("job.submitted", "here we go")
    process = subprocess.Popen(
        [sys.executable, "-m", "trainctl.cli", "watch", "a"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert "here we go" in process.stdout.readline()
    process.send_signal(2)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "detached: job a goes on" in err
    assert "trainctl watch a" in err
    assert "Traceback" not in err


@given(st.lists(st.integers(1, 4), max_size=12), st.data())
def test_events_are_shown_once_whatever_is_repeated(steps: list[int], data: st.DataObject) -> None:
    revision, events = 0, []
    for index, step in enumerate(steps):
        revision += step // 2  # several events of one revision
        events.append(Event(revision=max(revision, 1), type="t", message=str(index)))
    position = EventPosition()
    shown: list[Event] = []
    for _ in range(3):
        asked = [event for event in events if event.revision > position.ask_after]
        shown += position.new(asked[: data.draw(st.integers(0, len(asked)))])
    shown += position.new(event for event in events if event.revision > position.ask_after)
    assert shown == events


@pytest.mark.parametrize("form", ["json", "yaml", "name", "table"])
def test_events_in_every_form(cli: Cli, controller: FakeController, form: str) -> None:
    controller.add_job("a")
    controller.add_event("job.submitted", "here we go", name="a")
    assert "job.submitted" in cli("events", "a", "-o", form).out
