"""Without it watching or following over a controller's restart could end, repeat itself or leave things out."""

import io
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainctl.cli.main import main
from trainctl.cli.streams.log_reader import LogReader
from trainctl.cli.streams.positions import EventPosition
from trainctl.protos.v1.job_pb2 import Event, Job, StreamLogsResponse
from trainctl.protos.v1.records_pb2 import LogPosition
from unit.cli.conftest import Cli
from unit.cli.fake_controller import FakeController
from waiting import until


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
    for words, said in (
        (("--slot", "77"), "no worker slot 77; it has 0, 1, 2 (NOT_FOUND)"),
        (("--slot", "1,8-9"), "no worker slot 8, 9; it has 0, 1, 2 (NOT_FOUND)"),
        (("--attempt", "99"), "no attempt 99; it has 1, 2, 3 (NOT_FOUND)"),
        (("--slot", "1", "--attempt", "3"), "no attempt 3 in slot 1; it has 2 (NOT_FOUND)"),
        (("--rank", "1", "--attempt", "3", "-f"), "no attempt 3 in slot 0; it has 1 (NOT_FOUND)"),
    ):
        missing = cli("logs", "a", *words)
        assert (missing.code, missing.out) == (3, "")
        assert said in missing.err
        assert "hint: `trainctl describe a` shows" in missing.err
    assert cli("logs", "a", "--slot", "1", "--attempt", "2", "--tail", "1").out == "s1 4\n"
    for wrong in ("x", "3-1", "0,,1", "0-999999"):
        assert cli("logs", "a", "--slot", wrong).code == 2
    assert cli("logs", "a", "--tail", "0").code == 2


def test_logs_after_a_restart_begin_where_they_broke_off_whatever_was_printed_meanwhile(
    controller: FakeController, environment: dict[str, str]
) -> None:
    controller.add_job("a")
    controller.logs = {(0, 1): ["same"] * 50}
    running = Running(environment, "logs", "a", "-f", "--tail", "2", "-o", "json")
    running.shows('"number": 50')
    controller.stop()
    controller.logs[0, 1] += ["same"] * 3000  # more than any tail
    controller.logs[0, 7] = ["new"] * 500  # more than the tail that was asked for, of a life that nobody knew
    controller.start()
    running.shows('"number": 500')
    finish(controller, "a", "SUCCEEDED")
    running.wait()
    seen = [(item["incarnation"], item["number"]) for item in map(json.loads, running.out.getvalue().splitlines())]
    assert seen == [*((1, n) for n in range(49, 3051)), *((7, n) for n in range(1, 501))]


def test_lines_that_are_gone_are_counted_and_lines_that_come_twice_are_not_shown() -> None:
    reader = LogReader(uid="u")

    def lines(first: int, *texts: str) -> list[str]:
        answer = StreamLogsResponse(slot=0, incarnation=1, lines=texts, first_line=first)
        return [line for chunk in reader._new(answer) for line in chunk.lines]

    start = StreamLogsResponse(node="n", begun=True, starts=[LogPosition(slot=0, incarnation=1, line=4)])
    assert list(reader._new(start)) == []
    assert lines(5, "e", "f") == ["e", "f"]
    assert lines(5, "e", "f", "g") == ["g"]
    assert lines(5, "e") == []
    gap, *rest = lines(20, "t")
    assert "12 lines left out" in gap
    assert rest == ["t"]
    assert lines(0, "[a note]") == ["[a note]"]
    assert list(reader._new(start)) == []
    assert lines(21, "u") == ["u"]
    assert reader.begun == {"n"}


def test_logs_by_life_time_and_with_times(cli: Cli, controller: FakeController) -> None:
    job = controller.add_job("a")
    island = job.status.islands.add(id="island-0", generation=2)
    island.workers.add(slot=0, incarnation=8, global_rank=0, pid=10)
    stamp = "2026-01-31T12:00:00.000Z"
    controller.logs = {(0, 3): [f"{stamp} old"], (0, 8): [f"{stamp} new", "without"]}
    assert cli("logs", "a").out == "old\nnew\nwithout\n"
    assert cli("logs", "a", "--timestamps").out == f"{stamp} old\n{stamp} new\nwithout\n"
    assert cli("logs", "a", "--attempt", "last").out == "new\nwithout\n"
    assert cli("logs", "a", "--incarnation", "3").out == "old\n"
    assert cli("logs", "a", "--rank", "all", "--slot", "all").code == 2
    first = json.loads(cli("logs", "a", "--rank", "0", "-o", "json").out.splitlines()[0])
    assert first == {"slot": 0, "incarnation": 3, "node": "node-0", "number": 1, "time": stamp, "line": "old"}
    before_s = time.time()
    assert cli("logs", "a", "--since", "10m").code == 0
    request = controller.calls[-1][1]
    assert request.tail_lines == 0
    assert before_s - 600 <= request.since_s <= time.time() - 600
    assert cli("logs", "a", "--since", "2026-01-31T12:00:00Z", "--tail", "5").code == 0
    assert (controller.calls[-1][1].tail_lines, controller.calls[-1][1].since_s) == (5, 1769860800.0)
    many = cli("logs", "a", "--rank", "0-50000")
    assert many.code == 3
    assert len(many.err) < 300


def test_events_since(cli: Cli, controller: FakeController) -> None:
    controller.add_job("a")
    controller.add_event("job.submitted", "long ago")
    controller.events[0].time_s = time.time() - 3600
    controller.add_event("job.running", "just now")
    controller.events[1].time_s = time.time()
    assert cli("events", "a", "--since", "10m").out.endswith("just now\n")
    assert "long ago" not in cli("events", "a", "--since", "10m").out
    assert "long ago" in cli("events", "a", "--since", "2h", "-o", "wide").out


def test_get_watch_shows_changes_only_and_ends_with_the_job(
    controller: FakeController, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainctl.cli.streams.changes.EVERY_S", 0.01)
    controller.add_job("a", step=1, total_steps=9)
    running = Running(environment, "get", "job", "a", "-w")
    running.shows("RUNNING")
    controller.stop()
    controller.jobs["a"].status.phase = "RECOVERING"
    controller.start()
    running.shows("RECOVERING")
    controller.jobs["a"].status.phase = "FAILED"
    running.wait()
    assert running.code == 8
    rows = [line.split() for line in running.out.getvalue().splitlines()]
    assert [row[1] for row in rows] == ["PHASE", "RUNNING", "RECOVERING", "FAILED"]


def test_get_watch_tells_of_what_is_deleted(
    cli: Cli, controller: FakeController, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = [controller.add_job("a"), controller.add_job("b")]
    looks = [there, there[1:], there[1:]]

    def look(client: object) -> list[Job]:
        if not looks:
            raise KeyboardInterrupt
        return looks.pop(0)

    monkeypatch.setattr("trainctl.cli.streams.changes.EVERY_S", 0.0)
    monkeypatch.setattr("trainctl.cli.commands.get.list_jobs", look)
    found = cli("get", "jobs", "-w", "-o", "name")
    assert found.code == 130
    assert found.out.splitlines() == ["a", "b"]
    assert found.err.splitlines().count("a is there no longer") == 1
    assert "b is there no longer" not in found.err


def test_timeline_as_a_trace_that_viewers_open(cli: Cli, controller: FakeController) -> None:
    job = controller.add_job("a", "SUCCEEDED")
    begin_s = job.create_time_s
    job.status.end_time_s = begin_s + 30
    recovery = job.status.recoveries.add(generation=2, fault="worker 1", rung="peer", started_s=begin_s + 10)
    recovery.phases_s.update({"detect": 0.5, "restore": 1.25, "total": 1.75})
    for index, phase in enumerate(("RUNNING", "RECOVERING", "RUNNING", "SUCCEEDED")):
        controller.add_event("job.phase", phase, to=phase)
        controller.events[-1].time_s = begin_s + 5 * (index + 1)
    trace = json.loads(cli("timeline", "a", "-o", "chrome-trace").out)
    assert trace["displayTimeUnit"] == "ms"
    for event in trace["traceEvents"]:
        assert event["ph"] in "XiM"
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        assert event["name"]
        assert event["ph"] == "M" or (isinstance(event["ts"], int) and event["ts"] >= 0)
        assert event["ph"] != "X" or (isinstance(event["dur"], int) and event["dur"] >= 0)
        assert event["ph"] != "i" or event["s"] == "t"
        assert event["ph"] != "M" or event["args"]["name"]
    spans = {(e["name"], e["ts"]): e["dur"] for e in trace["traceEvents"] if e["ph"] == "X"}
    seconds = 1_000_000
    assert spans["QUEUED", 0] == 5 * seconds
    assert spans["RECOVERING", 10 * seconds] == 5 * seconds
    assert spans["generation 2: peer", 10 * seconds] == 1_750_000
    assert spans["detect", 10 * seconds] == 500_000
    assert spans["restore", 10 * seconds + 500_000] == 1_250_000


def test_a_slot_that_may_get_a_worker_can_be_followed_and_no_other(cli: Cli, controller: FakeController) -> None:
    job = controller.add_job("a", "CANCELLED")
    job.effective_spec.spec.nodes.max = 2
    job.effective_spec.spec.resources.workers_per_node = 2
    assert cli("logs", "a", "--slot", "3", "-f").code == 9
    missing = cli("logs", "a", "--slot", "4", "-f")
    assert missing.code == 3
    assert "no worker slot 4; it has 0, 1, 2, 3" in missing.err
    assert "it has none at the moment" in cli("logs", "a", "--slot", "3").err


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


@pytest.mark.parametrize("command", [("watch", "a"), ("submit", "--watch", "-f")])
def test_ctrl_c_detaches_and_says_how_to_come_back(
    controller: FakeController, environment: dict[str, str], tmp_path: Path, command: tuple[str, ...]
) -> None:
    if command[0] == "submit":
        (tmp_path / "job.yaml").write_text("{apiVersion: trainctl.dev/v1, kind: TrainJob, metadata: {name: a}}")
        command = (*command, str(tmp_path / "job.yaml"))
    else:
        controller.add_job("a", step=1, total_steps=9)
    controller.add_event("job.submitted", "here we go")
    process = subprocess.Popen(
        [sys.executable, "-m", "trainctl.cli", *command],
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
    assert controller.jobs["a"].status.phase in ("QUEUED", "RUNNING")
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
