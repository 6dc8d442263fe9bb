"""The commands that change jobs and nodes: what is sent, what is asked first, what is shown.

Without it a command could change another job than meant, or not ask before it destroys.
"""

from __future__ import annotations

import io
import json
import sys

import pytest

from trainctl.cli.terminal.style import Style, clip, visible_length
from trainctl.core.errors import PreconditionError
from trainctl.protos.v1 import job_pb2
from unit.cli.answering import Terminal, answer, sent
from unit.cli.conftest import Cli
from unit.cli.fake_controller import FakeController


def test_scale_sends_only_what_is_given(cli: Cli, controller: FakeController) -> None:
    controller.add_job("a")
    done = cli("scale", "a", "--max", "4", "--request-id", "r")
    assert done.code == 0
    assert "at most 4" in done.out
    (request,) = sent(controller, "ScaleJob")
    assert isinstance(request, job_pb2.ScaleJobRequest)
    assert (request.HasField("min"), request.max, request.HasField("target")) == (False, 4, False)
    assert request.request_id == "r"
    assert cli("scale", "a").code == 2
    assert cli("scale", "a", "--min", str(2**40)).code == 2
    assert len(sent(controller, "ScaleJob")) == 1


def test_every_change_carries_a_fresh_request_id(cli: Cli, controller: FakeController) -> None:
    controller.add_job("a")
    controller.nodes.append(job_pb2.NodeStatus(node="node-0", state="READY", slots=2))
    jobs = (("pause", "a"), ("resume", "a"), ("pause", "a"))
    nodes = (("cordon", "node-0"), ("uncordon", "node-0"), ("drain", "node-0"))
    for words in (*jobs, *nodes, *(("nodes", *words) for words in nodes)):
        assert cli(*words).code == 0
    changes = [r for m, r in controller.calls if m.startswith(("Pause", "Resume", "Cordon", "Uncordon"))]
    assert len({request.request_id for request in changes}) == 9
    bodies = [(type(r).__name__, r.node, getattr(r, "drain", False)) for r in changes[3:]]
    assert bodies[:3] == bodies[3:], "both spellings ask for the same"
    controller.add_job("b", "RECOVERING")
    refused = cli("restart", "b")
    assert refused.code == 6
    assert "(STEPS_WOULD_BE_LOST)" in refused.err
    assert "request-id: " in refused.err


def test_a_restart_asks_before_steps_are_lost(
    cli: Cli, controller: FakeController, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller.add_job("a", "RECOVERING")
    answer(monkeypatch, "n\n")
    assert cli("restart", "a").code == 1
    heard = answer(monkeypatch, "y\n")
    done = cli("restart", "a")
    assert done.code == 0
    assert "loses 5 steps" in done.err
    assert "[y/N]" in heard.getvalue()
    allowed = [r.allow_loss for r in sent(controller, "RestartJob") if isinstance(r, job_pb2.RestartJobRequest)]
    assert allowed == [False, False, True]
    assert cli("restart", "a", "-y").code == 0


def test_a_rollback_says_what_it_gives_up_before_it_does_it(
    cli: Cli, controller: FakeController, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller.add_job("a")
    heard = answer(monkeypatch, "no\n")
    assert cli("rollback", "a").code == 1
    assert "back to step 20 (/checkpoints/20), giving up 13 steps?" in heard.getvalue()
    assert all(isinstance(r, job_pb2.RollbackJobRequest) and r.validate_only for r in sent(controller, "RollbackJob"))
    assert cli("rollback", "a", "--to-step", "10", "-y").code == 0
    last = sent(controller, "RollbackJob")[-1]
    assert isinstance(last, job_pb2.RollbackJobRequest)
    assert (last.to_step, last.validate_only) == (10, False)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert cli("rollback", "a").code == 2


def test_delete_waits_until_it_is_gone_or_says_what_is_not(cli: Cli, controller: FakeController) -> None:
    controller.add_job("a", "SUCCEEDED")
    assert cli("delete", "a").code == 2
    assert "a" in controller.jobs
    done = cli("delete", "a", "-y", "--keep-checkpoints", "-o", "json")
    assert (done.code, json.loads(done.out)["deleted"]) == (0, True)
    assert "a" not in controller.jobs
    controller.add_job("b", "SUCCEEDED")
    controller.stuck = "permission denied: /checkpoints"
    failed = cli("delete", "b", "-y")
    assert failed.code == 7
    assert "permission denied: /checkpoints (NOT_DELETED)" in failed.err


@pytest.mark.parametrize("command", ["cancel", "delete"])
def test_nobody_is_asked_about_a_job_that_does_not_exist(
    cli: Cli, controller: FakeController, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    controller.add_job("a")
    heard = answer(monkeypatch, "y\n")
    assert cli(command, "b").code == 3
    assert heard.getvalue() == ""
    heard = answer(monkeypatch, "n\n")
    assert cli(command, "uid-a").code == 1
    assert f"{command} job a" in heard.getvalue()
    assert [method for method, _ in controller.calls] == ["GetJob", "GetJob"]


def test_nobody_is_asked_whether_an_ended_job_shall_be_cancelled(
    cli: Cli, controller: FakeController, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller.add_job("a", "SUCCEEDED")
    controller.on_call = lambda method: controller.failures.append(PreconditionError("it has ended"))
    heard = answer(monkeypatch, "y\n")
    assert cli("cancel", "a").code == 6
    assert heard.getvalue() == ""


def test_a_command_has_no_checkpoints_and_nobody_says_so(
    cli: Cli, controller: FakeController, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = controller.add_job("a", workdir="/jobs/a")
    job.effective_spec.spec.command.append("train.py")
    job.effective_spec.spec.launch.mode = "torchrun"
    listed = cli("get", "checkpoints", "a")
    assert (listed.code, listed.out) == (0, "")
    assert "saves no checkpoints of it" in listed.err
    assert "/jobs/a" in listed.err
    assert "saves no checkpoints of it" in cli("checkpoints", "export", "a", "/tmp/nowhere").err
    assert "trainctl restart a" in cli("rollback", "a", "-y").err
    assert "there is nothing to draw" in cli("plot", "a").err
    for command in ("pause", "restart", "cancel"):
        job.status.phase = "RUNNING"
        done = cli(command, "a", *(() if command == "pause" else ("-y",)))
        assert done.code == 0
        assert "checkpoint" not in done.out
    heard = answer(monkeypatch, "n\n")
    assert cli("delete", "a").code == 1
    assert "with all that the command saved there" in heard.getvalue()


def test_a_drain_is_followed_until_the_node_is_empty(cli: Cli, controller: FakeController) -> None:
    node = job_pb2.NodeStatus(node="node-0", state="READY", slots=2, slots_used=2)
    node.jobs.add(name="a", slots=[0, 1], waiting="needs room on another node")
    controller.nodes.append(node)
    controller.on_call = lambda method: node.ClearField("slots_used") if method == "ListNodes" else None
    done = cli("drain", "node-0", "--wait")
    assert done.code == 0
    assert "job a: needs room on another node" in done.err
    assert "is empty" in done.out
    assert "DRAINING" in cli("nodes", "list").out
    described = cli("nodes", "describe", "node-0").out
    assert "none, its workers are moved away" in described
    assert "0,1" in described
    assert "Fails with  no other node" in described
    node.failure_domain = "rack-4"
    assert "Fails with  failure domain rack-4" in cli("nodes", "describe", "node-0").out
    assert json.loads(cli("nodes", "describe", "node-0", "-o", "json").out)["failureDomain"] == "rack-4"
    assert "rack-4" in cli("nodes", "list", "-o", "wide").out
    missing = cli("nodes", "describe", "node-7")
    assert missing.code == 3
    assert "known nodes: node-0" in missing.err


def test_top_is_plain_and_once_without_a_terminal(cli: Cli, controller: FakeController) -> None:
    job = controller.add_job("a", step=7, total_steps=9, loss=1.5, tokens_per_s=1000.0, eta_s=61.0)
    job.last_event.CopyFrom(job_pb2.Event(type="checkpoint.committed", time_s=job.create_time_s))
    job.status.islands.add().workers.add(
        global_rank=0, node="node-0", pid=4, state="ACTIVE", phase="compute", step=7, rss_bytes=1 << 20
    )
    controller.add_job("b", "PAUSED")
    shown = cli("top")
    assert shown.code == 0
    assert "\x1b" not in shown.out
    row = next(line.split() for line in shown.out.splitlines() if line.startswith("a "))
    assert row[:4] == ["a", "RUNNING", "7/9", "1.5000"]
    assert "checkpoint.committed" in row
    workers = cli("top", "a").out.splitlines()
    assert workers[-1].split()[:5] == ["0", "node-0", "ACTIVE", "compute", "7"]
    assert "1.0 MiB" in workers[-1]
    assert json.loads(cli("top", "-o", "json").out)["jobs"][1]["lastEvent"]["type"] == "checkpoint.committed"
    assert cli("top", "nobody").code == 3


def test_top_draws_again_in_place_on_a_terminal(cli: Cli, controller: FakeController) -> None:
    controller.add_job("a")
    looks: list[str] = []

    def stop(method: str) -> None:
        looks.append(method)
        if len(looks) == 2:
            controller.jobs["a"].status.phase = "SUCCEEDED"
        elif len(looks) > 4 and method == "sleep":  # in the command, not in the server: that would never answer
            raise KeyboardInterrupt

    out = Terminal()
    controller.on_call = stop
    sleeping = pytest.MonkeyPatch()
    sleeping.setattr("trainctl.cli.commands.top.time.sleep", lambda s: stop("sleep"))
    try:
        assert cli("top", out=out).code == 130
    finally:
        sleeping.undo()
    assert out.getvalue().count("\x1b[H\x1b[J") >= 2
    assert "SUCCEEDED" in out.getvalue()


@pytest.mark.parametrize("width", [0, 1, 5, 9, 40])
def test_painted_lines_are_cut_by_what_is_seen(width: int) -> None:
    painted = Style(enabled=True).paint("green", "green") + " and " + Style(enabled=True).paint("red", "red")
    cut = clip(painted, width)
    assert visible_length(cut) == min(width, len("green and red"))
    assert cut.count("\x1b[0m") == 2
