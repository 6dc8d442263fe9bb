"""Without it a wrong flag, address or token could give a traceback, a slow help, or a token to the wrong host."""

import errno
import io
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from trainctl.cli.main import main
from trainctl.core.errors import (
    ConflictError,
    FencedError,
    PermissionDeniedError,
    PreconditionError,
    TrainctlError,
    UnavailableError,
    UsageError,
)
from trainctl.core.system.processes import identify
from unit.cli.conftest import Cli
from unit.cli.fake_controller import FakeController

REFUSALS = (ConflictError, FencedError, PermissionDeniedError, PreconditionError, UnavailableError, UsageError)
NOTHING = {"TRAINCTL_HOME": "/nonexistent", "TRAINCTL_CONFIG": ""}


def offline(*arguments: str, env: dict[str, str] | None = None) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    code = main(arguments, out=out, err=err, env=NOTHING if env is None else {"TRAINCTL_CONFIG": "", **env})
    return code, out.getvalue(), err.getvalue()


def imported_by(*arguments: str) -> str:
    code = "import sys; from trainctl.cli.main import main; main(sys.argv[1:]); print(*sys.modules, file=sys.stderr)"
    command, env = [sys.executable, "-c", code, *arguments], {**os.environ, **NOTHING}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stderr


@pytest.mark.parametrize(
    "arguments", [("--help",), ("submit", "--help"), ("completion", "bash"), ("version", "--client")]
)
def test_help_and_completion_load_nothing_heavy(arguments: tuple[str, ...]) -> None:
    modules = set(imported_by(*arguments).split())
    assert not modules & {"grpc", "yaml", "torch", "numpy", "asyncio"}


@pytest.mark.parametrize(
    "arguments",
    [
        ("get", "job", "a", "-o", "jsonpath=.status.phase"),
        ("events", "a"),
        ("explain", "a"),
        ("timeline", "a"),
        ("watch", "a"),
        ("logs", "a"),
    ],
)
def test_what_scripts_ask_again_and_again_loads_nothing_about_job_files(arguments: tuple[str, ...]) -> None:
    modules = set(imported_by(*arguments).split())
    assert "grpc" in modules
    assert not modules & {"yaml", "trainctl.controller.domain.spec", "trainctl.core.records.spec"}


def test_help_is_instant() -> None:
    def seconds(*command: str) -> float:
        """Of computing: what the machine does meanwhile for others is not ours."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *command], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds("-m", "trainctl.cli", "--help") for _ in range(3)) < 0.3
    assert min(seconds("-m", "trainctl.cli", "__complete", "--", "get", "") for _ in range(3)) < 0.3


def test_no_command_shows_the_help() -> None:
    code, out, err = offline()
    assert code == 2
    assert out == ""
    assert "trainctl local up" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("sumbit",), 'did you mean "submit"?'),
        (("get",), "COMMAND"),
        (("get", "jbos"), 'did you mean "jobs"?'),
        (("describe",), "NAME"),
        (("submit",), "-f/--file"),
        (("events", "x", "--frobnicate"), "--frobnicate"),
        (("get", "jobs", "-o", "xml"), "xml"),
        (("get", "jobs", "-o", "jason"), 'did you mean "json"?'),
        (("get", "jobs", "-o", "jsonpath=.a["), "position 4: expected an index"),
        (("get", "jobs", "-o", "jsonpath={.a"), "position 4: expected '}'"),
        (("get", "jobs", "-o", "jsonpath={range .a}{.b}"), "position 1: this {range} has no {end}"),
        (("get", "jobs", "-o", "custom-columns=A"), "position 1: expected NAME:.path"),
        (("get", "jobs", "-o", "custom-columns=A:.x;B:.y"), "position 5: expected ','"),
        (("get", "jobs", "--filter", ".a = 3"), "position 4: expected one of =="),
        (("get", "jobs", "--filter", ".a =~ '('"), "not a regular expression"),
        (("get", "jobs", "-l", "a=b,,c"), "position 5: expected key=value"),
        (("get", "jobs", "--show-defaults"), "-o yaml"),
        (("events", "x", "--since", "yesterday"), "an age such as 10m"),
        (("logs", "x", "--since", "2026-01-01T00:00:00"), "2026-01-31T12:00:00Z"),
        (("logs", "x", "--attempt", "first"), "last, all or the number"),
        (("submit", "-f", "x", "--watch", "--wait"), "not allowed with"),
        (("submit", "-f", "x", "--wait=DONE"), "expected one of QUEUED"),
        (("submit", "-f", ""), "found an empty text"),
        (("demo", "--corpus", "/nowhere/at-all"), "does not exist"),
        (("config", "set-context", "x"), "something to set"),
        (("get", "jobs", "--address", "h:1", "--timeout", "9999d"), "1ms to 1h00m"),
        (("get", "jobs", "--address", "h:99999999999999"), "HOST:PORT"),
        (("get", "jobs", "--address", "nowhere"), "HOST:PORT"),
        (("get", "jobs", "--address", "h:1", "--timeout", "5"), "duration"),
        (("cancel", "x", "--grace", "soon"), "duration"),
        (("local", "up", "--agents", "-1"), "0 to 64"),
        (("local", "up", "--port", "70000"), "0 to 65535, found 70000 (USAGE)\nhint: for example --port 7070"),
    ],
)
def test_wrong_usage_is_one_error_with_a_hint(arguments: tuple[str, ...], words: str) -> None:
    code, out, err = offline(*arguments)
    assert code == 2, err
    assert out == ""
    assert words in err
    assert err.startswith("error: ")
    assert err.splitlines()[0].endswith("(USAGE)")


def test_no_controller_says_what_was_tried(tmp_path: Path) -> None:
    code, _, err = offline("get", "jobs", env={"TRAINCTL_HOME": str(tmp_path)})
    assert code == 7
    assert str(tmp_path / "local") in err
    assert "hint: start one on this machine with: trainctl local up" in err


def test_nobody_at_the_address_says_which(cli: Cli, controller: FakeController) -> None:
    controller.stop()
    result = cli("get", "jobs")
    assert result.code == 7
    assert controller.address in result.err
    assert "TRAINCTL_ADDRESS" in result.err
    assert "trainctl local up" in result.err


def test_stale_local_controller_is_named(tmp_path: Path) -> None:
    run_dir = tmp_path / "local"
    run_dir.mkdir()
    (run_dir / "controller.json").write_text(f'{{"pid": {os.getpid()}, "start_ticks": 1, "address": "127.0.0.1:9"}}')
    code, _, err = offline("get", "jobs", env={"TRAINCTL_HOME": str(tmp_path)})
    assert code == 7
    assert "127.0.0.1:9 is not running" in err
    (run_dir / "controller.json").write_text("{")
    code, _, err = offline("get", "jobs", env={"TRAINCTL_HOME": str(tmp_path)})
    assert code == 6
    assert "damaged" in err


def test_flags_win_over_the_environment_and_may_stand_before_the_command(cli: Cli, controller: FakeController) -> None:
    controller.add_job("a")
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{taken.getsockname()[1]}"
        result = cli("--address", nobody, "get", "jobs")
    assert result.code == 7
    assert f"{nobody} (from --address)" in result.err


def test_wrong_token_is_a_permission_error(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("wrong")
    result = cli("get", "jobs", "--token-file", str(tmp_path / "other"))
    assert result.code == 5
    assert "(UNAUTHENTICATED)" in result.err
    missing = cli("get", "jobs", "--token-file", str(tmp_path / "missing"))
    assert missing.code == 5
    assert "No such file" in missing.err


def test_pipes_without_a_writer_and_devices_are_refused_as_settings(
    cli: Cli, environment: dict[str, str], tmp_path: Path
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, what in ((str(pipe), "a named pipe"), ("/dev/zero", "a device")):
        token = cli("get", "jobs", "--token-file", path)
        assert (token.code, token.out) == (5, "")
        assert f"token file {path}: it is {what}, expected a regular file" in token.err
        environment["TRAINCTL_CONFIG"] = path
        config = cli("get", "jobs")
        assert config.code == 5
        assert f"config file {path}: it is {what}, expected a regular file" in config.err
        environment["TRAINCTL_CONFIG"] = os.devnull
    assert cli("get", "jobs").code == 0


def test_local_token_never_goes_to_another_address(controller: FakeController, tmp_path: Path) -> None:
    run_dir = tmp_path / "local"
    run_dir.mkdir()
    (run_dir / "token").write_text("secret")
    (run_dir / "controller.json").write_text('{"pid": 1, "start_ticks": 1, "address": "127.0.0.1:9"}')
    env = {"TRAINCTL_HOME": str(tmp_path), "TRAINCTL_ADDRESS": controller.address}
    code, _, _ = offline("get", "jobs", env=env)
    assert code == 5
    (run_dir / "controller.json").write_text(f'{{"pid": 1, "start_ticks": 1, "address": "{controller.address}"}}')
    code, _, _ = offline("get", "jobs", env=env)
    assert code == 0


def test_unavailable_is_tried_again_other_errors_are_not(cli: Cli, controller: FakeController) -> None:
    controller.add_job("a")
    controller.failures = [UnavailableError("not the leader")]
    assert cli("get", "job", "a").code == 0
    assert [method for method, _ in controller.calls] == ["GetJob", "GetJob"]
    controller.calls.clear()
    controller.failures = [ConflictError("moved"), PreconditionError("wrong state", hint="wait")]
    assert cli("get", "job", "a").code == 4
    result = cli("get", "job", "a")
    assert result.code == 6
    first, hint, request_id = result.err.splitlines()
    assert (first, hint) == ("error: wrong state (FAILED_PRECONDITION)", "hint: wait")
    assert request_id == f"request-id: {controller.request_ids[-1]}"
    assert len(controller.calls) == 2


@pytest.mark.parametrize("error", [TrainctlError("odd"), *(kind("no") for kind in REFUSALS)])
def test_every_error_of_the_controller_has_a_hint_and_a_request_id(
    cli: Cli, controller: FakeController, error: TrainctlError
) -> None:
    controller.add_job("a")
    controller.failures = [error] * 4
    result = cli("get", "job", "a")
    first, hint, request_id = result.err.splitlines()
    assert first == f"error: {error} ({error.code})"
    assert hint.startswith("hint: ")
    assert request_id == f"request-id: {controller.request_ids[-1]}"
    assert len(set(controller.request_ids)) == 1


def test_unanswered_call_ends_at_its_deadline(cli: Cli, controller: FakeController) -> None:
    controller.add_job("a")
    held = [True]
    controller.on_call = lambda method: _hold(held)
    result = cli("get", "job", "a", "--timeout", "200ms")
    held.clear()
    assert result.code == 7
    assert "did not answer within 0.2 s" in result.err
    assert "--timeout" in result.err


def _hold(held: list[bool]) -> None:
    while held:
        time.sleep(0.01)


def test_unexpected_exception_keeps_its_traceback_in_a_file(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(context: object) -> int:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("trainctl.cli.commands.get.jobs", broken)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    result = cli("get", "jobs")
    assert result.code == 1
    assert "error: internal error: ZeroDivisionError: oops (INTERNAL)" in result.err
    assert "Traceback" not in result.err
    (kept,) = tmp_path.glob("trainctl-*.log")
    assert str(kept) in result.err
    assert "ZeroDivisionError" in kept.read_text()
    assert "Traceback" in cli("get", "jobs", "--debug").err


def test_interrupt_exits_with_130(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(context: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("trainctl.cli.commands.get.jobs", interrupted)
    assert cli("get", "jobs").code == 130


@pytest.mark.parametrize("words", ["get jobs -o json", "logs -f job-1", "events -w job-1", "watch job-1"])
def test_closed_pipe_is_quiet(controller: FakeController, environment: dict[str, str], words: str) -> None:
    for index in range(50):
        controller.add_job(f"job-{index}")
    controller.logs[0, 1] = ["x" * 10_000] * 20
    for index in range(20):
        controller.add_event("worker.ready", f"{index} " + "y" * 10_000)
    command = f"{sys.executable} -m trainctl.cli {words} | head -c 10"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], env={**os.environ, **environment}, capture_output=True, check=False
    )
    assert done.stderr == b""
    assert done.returncode == 0


MAIN = "import sys; from trainctl.cli.main import main; sys.exit(main())"


def python(code: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], stderr=subprocess.PIPE, text=True, check=False, timeout=30, **options
    )


@pytest.mark.parametrize("module", ["argparse", "trainctl.cli.grammar.parser", "trainctl.core.errors", "grpc"])
def test_ctrl_c_in_the_first_moment_is_no_traceback(module: str, environment: dict[str, str]) -> None:
    interrupt = f"""
import sys
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "{module}":
            raise KeyboardInterrupt
from trainctl.cli.main import main
sys.modules.pop("{module}", None)
sys.meta_path.insert(0, Interrupt())
sys.exit(main())
"""
    done = python(interrupt, "get", "jobs", stdout=subprocess.PIPE, env={**os.environ, **environment})
    assert done.returncode == 130
    assert done.stderr.strip() == "interrupted"


@pytest.mark.parametrize("arguments", [("get", "jobs", "-o", "json"), ("--help",), ("completion", "bash")])
def test_a_full_disk_behind_stdout_is_no_bug(
    controller: FakeController, environment: dict[str, str], arguments: tuple[str, ...]
) -> None:
    controller.add_job("a")
    with open("/dev/full", "w") as full:
        done = python(MAIN, *arguments, stdout=full, env={**os.environ, **environment})
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == (
        "error: the output cannot be written: No space left on device (OUTPUT_FAILED)"
    )
    assert "Exception ignored" not in done.stderr


@pytest.mark.parametrize("form", ["table", "json", "yaml", "name"])
def test_a_terminal_without_unicode_gets_an_answer(
    controller: FakeController, environment: dict[str, str], form: str
) -> None:
    job = controller.add_job("a")
    job.status.reason = "Zurück"
    job.status.recoveries.add(fault="überfahren", started_s=1).phases_s["detect"] = 1.0
    env = {**os.environ, **environment, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = python(MAIN, "describe", "a", "-o", form, stdout=subprocess.PIPE, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    if form == "json":
        assert json.loads(done.stdout)["status"]["reason"] == "Zurück"
    drawn = python(MAIN, "timeline", "a", stdout=subprocess.PIPE, env=env)
    assert (drawn.returncode, drawn.stderr) == (0, "")


def test_hints_around_a_silent_controller_lead_somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It listens and lives, but never answers: each command names the process and what ends the silence."""
    monkeypatch.setattr("trainctl.cli.local.start._ANSWER_S", 0.2)
    identity = identify(os.getpid())
    assert identity is not None
    run_dir = tmp_path / "local"
    run_dir.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        facts = {"pid": identity.pid, "start_ticks": identity.start_ticks, "address": address}
        (run_dir / "controller.json").write_text(json.dumps(facts))
        (run_dir / "token").write_text("x")
        for command in (("get", "jobs", "--timeout", "200ms"), ("local", "up")):
            _, _, err = offline(*command, env={"TRAINCTL_HOME": str(tmp_path)})
            assert f"kill -KILL {identity.pid} && trainctl local up" in err
            assert "local status" not in err


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (errno.ENOSPC, 7, "some/file: No space left on device (UNAVAILABLE)\nhint: make room"),
        (errno.ENOTDIR, 2, "some/file: Not a directory (USAGE)\nhint: name another"),
        (errno.EIO, 1, "internal error: OSError"),
    ],
)
def test_what_the_machine_lacks_is_no_bug(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, number: int, code: int, said: str
) -> None:
    def failing(context: object) -> int:
        raise OSError(number, os.strerror(number), "some/file")

    monkeypatch.setattr("trainctl.cli.commands.get.jobs", failing)
    found = cli("get", "jobs")
    assert found.code == code
    assert said in found.err
