"""Without it people would see stale, doubled or badly placed facts about their jobs, and scripts get no JSON."""

import io
import json
import re
import time
from datetime import datetime
from typing import Any

import pytest
import yaml

from trainctl.cli.plot.curves import metrics_of, plot_of
from trainctl.cli.render.recoveries import describe, timeline
from trainctl.cli.streams.views import PROGRESS_EVERY_S, LiveView, PlainView
from trainctl.cli.terminal.console import Console
from trainctl.cli.terminal.style import PLAIN, Style, table, visible_length
from trainctl.cli.terminal.times import clock
from trainctl.core.errors import NotFoundError, PreconditionError
from trainctl.protos.v1.job_pb2 import Event, Job, NodeStatus, Recovery
from trainctl.protos.v1.records_pb2 import CheckpointRef, StepFigures
from unit.cli.conftest import Cli
from unit.cli.fake_controller import FakeController


def rich_job(controller: FakeController) -> Job:
    job = controller.add_job(
        "rich",
        "FAILED",
        step=12,
        total_steps=40,
        tokens=120_000,
        loss=3.25,
        eval_loss=3.5,
        tokens_per_s=1234.0,
        wall_s=60,
    )
    job.status.end_time_s = time.time()
    job.status.goodput_s.update({"productive": 45.0, "restoring": 15.0, "queued": 0.0})
    island = job.status.islands.add(id="island-0", generation=2, generation_phase="COMMITTED")
    island.workers.add(slot=0, global_rank=0, node="node-0", pid=11, state="ACTIVE", step=12, phase="compute")
    island.workers.add(slot=1, global_rank=-1, node="node-1", pid=0, state="EMPTY")
    job.status.conditions.add(type="Degraded", status="True", reason="WorkerLost", message="one of two", since_s=1)
    recovery = job.status.recoveries.add(
        generation=2, fault="worker 1 exited (SIGKILL)", rung="peer", reason="rank 0 holds it", target_step=7
    )
    recovery.phases_s.update({"restore": 0.25, "detect": 0.5, "first_step": 0.25, "total": 1.0})
    recovery.copied_bytes["rank:0 -> rank:1"] = 3 * 2**20
    recovery.candidates.add(rung="peer", eligible=True, cost_s=1.5, reason="a live peer")
    recovery.candidates.add(rung="checkpoint", eligible=False, reason="there is none")
    error = job.status.error
    error.type, error.message, error.code, error.step = (
        "ValueError",
        "rank 1 on node-1: bad sample",
        "USER_EXCEPTION",
        12,
    )
    error.traceback = 'File "train.py", line 3'
    error.log_tail.append("last words")
    return job


def test_describe_shows_everything(cli: Cli, controller: FakeController) -> None:
    rich_job(controller)
    controller.checkpoints.append(CheckpointRef(uri="/c/12", step=12, attempt="x"))
    out = cli("describe", "rich").out
    for words in (
        "12/40",
        "ValueError: rank 1 on node-1: bad sample (USER_EXCEPTION) at step 12",
        'File "train.py", line 3',
        "last words",
        "Degraded True for",
        "productive   75.0 %      45.00 s",
        "generation 2: worker 1 exited (SIGKILL); peer, 1.00 s",
        "seconds  detect 0.50, restore 0.25, first step 0.25",
        "copied   rank:0 -> rank:1 3.0 MiB; 0 committed steps lost",
        "/c/12",
    ):
        assert words in out, out
    assert "queued" not in out


def test_explain_and_timeline(cli: Cli, controller: FakeController) -> None:
    job = rich_job(controller)
    assert cli("explain", "rich").out == "It trains.\n"
    drawn = timeline(job.status.recoveries, started_s=0, style=PLAIN)
    assert [line.index("|") for line in drawn if "|" in line] == [35, 35, 35]
    assert "detect" in cli("timeline", "rich").out
    controller.add_job("calm")
    assert "no recovery" in cli("timeline", "calm").err


def test_the_timeline_shows_new_leaders_between_the_recoveries(cli: Cli, controller: FakeController) -> None:
    job = controller.add_job("a")
    for number in (1, 2):
        job.status.recoveries.add(
            generation=number + 1, fault=f"worker {number}", rung="peer", started_s=job.create_time_s + 10 * number
        )
    controller.add_event("job.running", "it trains")
    controller.add_event("leader.changed", "second leads now, after first")
    controller.events[-1].time_s = job.create_time_s + 15
    heads = [line for line in cli("timeline", "a").out.splitlines() if "+" in line]
    assert heads == [
        "   +10.0 s  generation 2  worker 1  (peer)",
        "   +15.0 s  second leads now, after first",
        "   +20.0 s  generation 3  worker 2  (peer)",
    ]
    data = json.loads(cli("timeline", "a", "-o", "json").out)
    assert [event["message"] for event in data["leaders"]] == ["second leads now, after first"]
    assert len(data["recoveries"]) == 2
    del job.status.recoveries[:]
    calm = cli("timeline", "a")
    assert calm.out == "   +15.0 s  second leads now, after first\n"
    assert "no recovery" in calm.err


def test_figures_of_an_earlier_leader_are_marked_with_their_time(cli: Cli, controller: FakeController) -> None:
    job = controller.add_job(
        "a",
        step=795,
        total_steps=9000,
        loss=2.5,
        figures_as_of_s=time.time() - 12.0,
        figures_stale=True,
        step_stale=True,
    )
    at = clock(job.status.figures_as_of_s, time.time())
    mark = f"@{at.replace(' ', 'T')}"
    assert f"795/9000{mark}  2.5000  " in cli("get", "jobs").out
    assert f"795/9000{mark}  2.5000  " in cli("top").out
    described = cli("describe", "a").out
    assert f"old: as of {at}, waiting for the agents" in described
    shown = json.loads(cli("get", "job", "a", "-o", "json").out)["status"]
    assert (shown["figuresStale"], shown["stepStale"]) == (True, True)
    assert shown["figuresAsOf"].endswith("Z")
    lines: list[str] = []
    view = PlainView(lines.append, lines.append)
    view.job(job)
    assert lines == [f"RUNNING  step 795/9000 (as of {at}, waiting for the agents)  loss 2.5000"]
    job.status.step, job.status.step_stale = 8890, False
    assert f"8890/9000  2.5000{mark}  " in cli("get", "jobs").out
    PlainView(lines.append, lines.append).job(job)
    assert lines[1] == f"RUNNING  step 8890/9000  loss 2.5000 (as of {at}, waiting for newer figures)"
    job.status.figures_stale = False
    assert "@" not in cli("get", "jobs").out
    assert "waiting" not in cli("describe", "a").out


def test_lists_in_every_form(cli: Cli, controller: FakeController) -> None:
    for name in ("a", "b", "c"):
        controller.add_job(name, step=1, total_steps=2)
    controller.nodes.append(NodeStatus(node="node-0", state="READY", pid=5, slots=2, slots_used=1))
    header, *rows = cli("get", "jobs").out.splitlines()
    assert header.split() == ["NAME", "PHASE", "STEP", "LOSS", "RATE", "RECOVERIES", "AGE"]
    assert len(rows) == 3
    assert re.search(r" 1m0\ds$", rows[0])
    assert yaml.safe_load(cli("get", "nodes", "-o", "yaml").out)["nodes"][0]["slotsUsed"] == 1
    assert "node-0" in cli("get", "nodes").out
    assert "no checkpoint yet" in cli("get", "checkpoints", "a").err
    controller.checkpoints.append(CheckpointRef(uri="/c/12", step=12))
    assert json.loads(cli("checkpoints", "list", "a", "-o", "json").out)["checkpoints"][0]["step"] == 12
    assert "not there" not in cli("get", "checkpoints", "a").err
    controller.missing_checkpoints.append("/c/12")
    assert "warning: it is not there any more: /c/12" in cli("get", "checkpoints", "a").err


@pytest.mark.parametrize(("command", "order"), [(("get", "jobs"), "cba"), (("top",), "cab")])
def test_a_list_has_one_order_in_every_form(
    cli: Cli, controller: FakeController, command: tuple[str, ...], order: str
) -> None:
    for name, phase in (("a", "RUNNING"), ("b", "FAILED"), ("c", "QUEUED")):
        controller.add_job(name, phase).create_time_s = ord(name)
    assert [line[0] for line in cli(*command).out.splitlines()[1:]] == [*order]
    assert cli(*command, "-o", "name").out.split() == [*order]
    shown = json.loads(cli(*command, "-o", "json").out)["jobs"]
    assert [job["spec"]["metadata"]["name"] for job in shown] == [*order]


def test_events_have_a_date_where_it_is_not_today(cli: Cli, controller: FakeController) -> None:
    controller.add_job("a", "SUCCEEDED")
    now_s = time.time()
    for days, word in ((400, "last year"), (3, "some days ago"), (0, "just now")):
        controller.add_event("job.running", word)
        controller.events[-1].time_s = now_s - 86400 * days
    lines = cli("events", "a").out.splitlines()
    long_ago, lately = (
        datetime.fromtimestamp(now_s - 86400 * days).astimezone().strftime("%Y-%m-%d %H:%M:%S") for days in (400, 3)
    )
    assert [line[:21] for line in lines[:2]] == [f"{long_ago}  ", f"{lately}  "]
    assert [line.index("job.running") for line in lines] == [21, 21, 21]
    followed = cli("events", "a", "-w").out.splitlines()
    assert followed[0] == lines[0]
    assert followed[2].strip() == lines[2].strip()
    moments = [event["time"] for event in json.loads(cli("events", "a", "-o", "json").out)["events"]]
    assert all(moment.endswith("Z") for moment in moments)


def test_an_event_of_today_has_its_time_only() -> None:
    begun_s = datetime(2026, 1, 31, 0, 0, 1).astimezone().timestamp()
    assert clock(begun_s, begun_s + 86397) == "00:00:01"
    assert clock(begun_s, begun_s + 86400) == "2026-01-31 00:00:01"
    assert clock(begun_s, begun_s - 2) == "2026-01-31 00:00:01"


def test_what_kubectl_taught_works_here(cli: Cli, controller: FakeController) -> None:
    controller.add_job("node", step=3, total_steps=9)
    controller.nodes.append(NodeStatus(node="node-0", state="READY", pid=5, slots=2))
    for words in (("get", "jobs", "node"), ("describe", "job", "node"), ("describe", "node")):
        assert cli(*words, "-o", "jsonpath=.uid").out == "uid-node\n"
    assert cli("describe", "node", "node-0").out == cli("nodes", "describe", "node-0").out
    assert cli("describe", "node", "node-7").code == 3
    wrong = cli("describe", "pod", "x")
    assert wrong.code == 2
    assert "trainctl describe node node-0" in wrong.err
    assert cli("get", "jobs", "node", "-l", "a=b").code == 2


def test_workers_of_an_ended_job_have_a_rank_and_a_last_step(cli: Cli, controller: FakeController) -> None:
    job = controller.add_job("a", "SUCCEEDED", step=9, total_steps=9)
    job.status.islands.add(id="island-0").workers.add(slot=4, global_rank=3, node="node-1", state="ENDED")
    title, header, row = cli("describe", "a").out.partition("Workers:")[2].splitlines()[:3]
    assert (title, header.split()) == ("", ["ISLAND", "SLOT", "RANK", "NODE", "STATE", "STEP"])
    assert row.split() == ["island-0", "4", "3", "node-1", "ENDED", "9"]
    assert cli("top", "a").out.splitlines()[-1].split()[:5] == ["3", "node-1", "ENDED", "-", "9"]


def test_a_job_without_a_loss_shows_none(cli: Cli, controller: FakeController) -> None:
    controller.add_job("a", "SUCCEEDED", step=9, total_steps=9)
    assert "loss" not in cli("watch", "a").out


def test_one_is_not_many(cli: Cli, controller: FakeController) -> None:
    controller.add_job("a")
    assert "on 1 node," in cli("scale", "a", "--target", "1").out
    assert "on 2 nodes," in cli("scale", "a", "--target", "2").out
    recovery = Recovery(generation=2, rung="checkpoint", lost_steps=1)
    assert "1 committed step lost" in "".join(describe(recovery))
    assert describe(Recovery(generation=3, fault="grow", planned=True))[0].startswith("generation 3 (planned): grow")
    assert (
        plot_of("", [StepFigures(step=1, loss=2.0)], [recovery], metrics_of("loss"))
        .marks[0]
        .answer.endswith(", 1 step lost")
    )


@pytest.mark.parametrize(
    ("phase", "words", "hint"),
    [
        ("RUNNING", ("plot", "a"), "look again later: trainctl watch a"),
        ("FAILED", ("plot", "a"), "how it ended says: trainctl explain a"),
        ("RUNNING", ("logs", "a", "--attempt", "x"), "`trainctl describe a -o json` shows the numbers as incarnation"),
        ("PAUSED", ("pause", "a"), "`trainctl explain a` says where the job is"),
    ],
)
def test_a_hint_names_the_job(
    cli: Cli, controller: FakeController, phase: str, words: tuple[str, ...], hint: str
) -> None:
    controller.add_job("a", phase)
    controller.failures = [PreconditionError("not now")] if words[0] == "pause" else []
    assert f"hint: {hint}\n" in cli(*words).err


def test_empty_lists_say_so_on_stderr(cli: Cli) -> None:
    result = cli("get", "jobs")
    assert (result.code, result.out) == (0, "")
    assert "trainctl submit" in result.err
    assert json.loads(cli("get", "jobs", "-o", "json").out) == {"jobs": []}
    assert "no agent" in cli("get", "nodes").err


def test_machine_output_has_numbers_times_and_no_nan(cli: Cli, controller: FakeController) -> None:
    job = controller.add_job("a", tokens=2**40)
    job.status.loss = float("nan")
    data: dict[str, Any] = json.loads(cli("get", "job", "a", "-o", "json").out)
    assert data["status"]["tokens"] == 2**40
    assert data["status"]["loss"] is None
    assert data["status"]["endTime"] is None
    assert data["createTime"].endswith("Z")
    assert "evalLoss" not in data["status"]


def test_cancel_sends_grace_and_checkpoint(cli: Cli, controller: FakeController) -> None:
    controller.add_job("a")
    result = cli("cancel", "a", "--checkpoint", "--grace", "2m", "-y")
    assert result.code == 0
    assert "CANCELLING, after one more checkpoint" in result.out
    (_, request) = controller.calls[-1]
    assert (request.grace_s, request.checkpoint) == (120.0, True)
    assert request.request_id
    controller.failures = [NotFoundError("there is no job b")]
    missing = cli("cancel", "b", "-y", "--request-id", "r1")
    assert missing.code == 3
    assert "request-id: r1" in missing.err


def test_version_of_both_sides(cli: Cli) -> None:
    assert "controller  9.9 (wire 1)" in cli("version").out
    assert json.loads(cli("version", "--client", "-o", "json").out)["client"]["wireVersion"] == 1


def test_table_is_aligned_also_when_painted() -> None:
    style = Style(enabled=True)
    rows = [("a", style.paint("RUNNING", "green"), "5"), ("longer", "X", "12345")]
    lines = table(("NAME", "STATE", "N"), rows, right="N")
    assert [visible_length(line) for line in lines] == [22, 22, 22]
    assert table(("NAME", "STATE", "N"), [("a", "b", "c")])[1] == "a     b      c"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_live_line_is_drawn_in_place_below_the_events() -> None:
    stream = Terminal()
    console = Console(stream, stream, {"TERM": "xterm"})
    view = LiveView(console, stream)
    job = Job()
    job.status.phase, job.status.step, job.status.total_steps, job.status.loss = "RUNNING", 5, 10, 2.5
    job.status.eta_s, job.status.tokens_per_s = 75, 12_345
    view.job(job)
    view.event(Event(type="worker.exited", message="worker 1 was killed"))
    view.close()
    text = stream.getvalue()
    assert text.count("\n") == 1
    last = text.split("\r\x1b[2K")[-2]
    assert "step 5/10  loss 2.5000  12.3k tokens/s  ETA 1m15s  last worker.exited" in last
    assert all(visible_length(piece.split("\n")[0]) <= console.width() for piece in text.split("\r\x1b[2K"))


TRAP = "\x1b]0;owned\x07\x1b[2J\x9b5n\u202egpj.exe\r"
"""Names the window, clears it, asks for an answer at the prompt, turns the text around and writes over the line."""


def test_what_somebody_else_wrote_commands_no_terminal() -> None:
    stream, pipe = Terminal(), io.StringIO()
    console = Console(stream, pipe, {"TERM": "xterm"})
    console.data([TRAP, "\x1b[31mred\x1b[0m\tü"])
    view = LiveView(console, stream)
    view.event(Event(type="a", message=TRAP))
    view.note(TRAP)
    console.complain(TRAP)
    shown = stream.getvalue().replace("\r\x1b[2K", "")
    assert "\x1b[31mred\x1b[0m\tü\n" in shown
    assert not {"\x07", "\x9b", "\u202e", "\r"} & {*shown}
    assert "\x1b]" not in shown
    assert "\x1b[2J" not in shown
    assert "\\x1b]0;owned\\x07" in shown
    assert pipe.getvalue() == f"{TRAP}\n", "what is not shown is handed on as it is"


@pytest.mark.parametrize("command", ["top", "watch"])
def test_a_dumb_terminal_gets_neither_colour_nor_cursor_movement(
    cli: Cli, controller: FakeController, environment: dict[str, str], command: str
) -> None:
    environment["TERM"] = "dumb"
    controller.add_job("a", "SUCCEEDED", step=9, total_steps=9)
    shown = cli(command, "a", out=Terminal(), err=Terminal())
    assert shown.code == 0
    assert "SUCCEEDED" in shown.out
    assert not {"\x1b", "\r"} & {*shown.out, *shown.err}


def test_colour_can_be_switched_off() -> None:
    stream = Terminal()
    assert Console(stream, stream, {}).style().enabled
    assert not Console(stream, stream, {"NO_COLOR": "1"}).style().enabled
    assert not Console(stream, stream, {}, no_color=True).style().enabled
    assert not Console(io.StringIO(), stream, {}).style().enabled


def test_plain_progress_comes_every_few_seconds_and_only_when_new() -> None:
    lines: list[str] = []
    now = [0.0]
    view = PlainView(lines.append, lines.append, now_s=lambda: now[0])
    job = Job()
    for step in range(100):
        job.status.phase, job.status.step = "RUNNING", step // 2
        view.job(job)
        now[0] += PROGRESS_EVERY_S / 10
    assert len(lines) == 10


@pytest.mark.parametrize("form", ["json", "yaml", "jsonpath={.jobs[0].spec.spec.train.options}"])
def test_values_of_ones_own_are_shown_as_they_were_written(cli: Cli, controller: FakeController, form: str) -> None:
    job = controller.add_job("a")
    options: dict[str, Any] = {"width": 16, "name": "x", "deep": {"list": [1, None, True]}}
    job.spec.spec.train.options.update(options)
    found = cli("get", "jobs", "-o", form)
    assert found.code == 0, found.err
    if form == "json":
        assert json.loads(found.out)["jobs"][0]["spec"]["spec"]["train"]["options"] == options
    assert "16" in found.out
