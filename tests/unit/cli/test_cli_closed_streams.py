"""Streams that are closed, or take nothing: nobody is told of a success that nobody saw.

Without it `trainctl get jobs | head` could end in a traceback, or a script take lost output for success.
"""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from trainctl.cli.commands.cancel import can_ask, confirm
from trainctl.cli.job_file.jobfile import read_job_file
from trainctl.cli.terminal.console import Console
from trainctl.core.errors import UsageError
from unit.cli.conftest import Cli
from unit.cli.fake_controller import FakeController

Done = subprocess.CompletedProcess[str]


def bash(environment: dict[str, str], words: str) -> Done:
    command = f"{sys.executable} -m trainctl.cli {words}"
    env = {**os.environ, **environment}
    return subprocess.run(["bash", "-c", command], env=env, capture_output=True, text=True, check=False, timeout=30)


def test_without_stdout_nothing_is_done(controller: FakeController, environment: dict[str, str]) -> None:
    controller.add_job("a")
    for words in ("cancel a -y >&-", "get jobs >&-", "--help >&-"):
        done = bash(environment, words)
        assert done.returncode == 1
        assert done.stderr.splitlines() == [
            "error: standard output is closed: nothing was done (OUTPUT_FAILED)",
            "hint: to see no output: >/dev/null",
        ]
    assert not controller.calls
    assert bash(environment, "get jobs >&- 2>&-").returncode == 1


def test_without_stderr_the_data_and_the_exit_code_are_as_ever(
    controller: FakeController, environment: dict[str, str]
) -> None:
    controller.add_job("a")
    found = bash(environment, "get jobs -o name 2>&-")
    assert (found.returncode, found.stdout, found.stderr) == (0, "a\n", "")
    assert bash(environment, "describe nobody 2>&-").returncode == 3
    assert bash(environment, "describe nobody 2>/dev/full").returncode == 3


def test_a_change_that_cannot_be_told_is_told_of(controller: FakeController, environment: dict[str, str]) -> None:
    controller.add_job("a")
    done = bash(environment, "cancel a -y >/dev/full")
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == (
        "error: the output cannot be written: No space left on device; what the command was to change is changed all "
        "the same (OUTPUT_FAILED)"
    )
    assert "changed all the same" not in bash(environment, "get jobs >/dev/full").stderr


@pytest.mark.parametrize("words", ["submit -f - <&-", "submit -f /dev/stdin <&-", "submit -f - 0>/dev/null"])
def test_a_job_from_a_closed_stdin_is_a_wrong_use(
    controller: FakeController, environment: dict[str, str], words: str
) -> None:
    done = bash(environment, words)
    assert done.returncode == 2
    reason = "cannot be read: Bad file descriptor" if "0>" in words else "is closed"
    assert done.stderr.splitlines()[0] == f"error: -f -: standard input {reason} (USAGE)"
    assert "trainctl submit -f - < job.yaml" in done.stderr


def test_a_stdin_that_fails_is_named() -> None:
    closed = io.BytesIO()
    closed.close()
    with pytest.raises(UsageError, match="standard input cannot be read: it is closed"):
        read_job_file("-", stdin=closed)


def test_nobody_is_asked_where_a_stream_is_closed(
    cli: Cli, controller: FakeController, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    controller.add_job("a")
    done = bash(environment, "cancel a <&-")
    assert done.returncode == 2
    assert "there is no terminal to ask on" in done.stderr
    monkeypatch.setattr(sys, "stdin", None)
    assert not can_ask()


def test_an_answer_that_is_no_text_is_no_consent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainctl.cli.commands.cancel.can_ask", lambda: True)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\n"), encoding="utf-8"))
    assert not confirm("go on?")


def test_the_numbers_of_closed_streams_are_nobody_elses(tmp_path: Path) -> None:
    """A connection with the number 2 would get what gRPC writes there."""
    code = (
        "import os, sys; from trainctl.cli.terminal.standard_streams import hold_closed_places as h; h(); "
        f"print(os.open(os.devnull, os.O_RDONLY), file=open({str(tmp_path / 'number')!r}, 'w'))"
    )
    subprocess.run(["bash", "-c", '"$0" -c "$1" <&- >&- 2>&-', sys.executable, code], check=True, timeout=30)
    assert int((tmp_path / "number").read_text()) > 2


def test_names_that_are_no_utf_8_can_be_shown() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="utf-8")
    Console(stream, io.StringIO(), {}).data("caf\udce9.yaml")
    assert raw.getvalue() == b"caf\\udce9.yaml\n"
