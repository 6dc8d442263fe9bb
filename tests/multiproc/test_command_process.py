"""The command's process group: everything of it ends, however the launcher ends.

Without it a script that ends badly could leave processes that hold devices and ports.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainctl.core.records.spec import HEARTBEAT, LOG, NOTHING, HangSpec, JobSpec, LaunchSpec
from trainctl.parallel.command.guard import Guard
from trainctl.parallel.command.process import CommandProcess
from trainctl.parallel.command.program import Program, check_storage, program_of
from trainctl.parallel.command.pulse import Pulse
from trainctl.parallel.plan.command_errors import CommandUnusableError
from waiting import until

pytestmark = pytest.mark.multiproc


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


@pytest.fixture
def guard() -> Iterator[Guard]:
    made = Guard()
    yield made
    made.close()


def shell(text: str, folder: Path) -> Program:
    return Program(arguments=("/bin/sh", "-c", text), folder=folder)


def started(path: Path, count: int) -> list[int]:
    """Process ids that a script wrote down, once all are there."""
    until(lambda: path.exists() and len(path.read_text().split()) == count, lambda: f"{path} never had {count} lines")
    return [int(word) for word in path.read_text().split()]


def test_exit_codes_and_signals(tmp_path: Path, guard: Guard) -> None:
    for text, code in (("exit 0", 0), ("exit 7", 7), ("kill -9 $$", -9), ("kill -6 $$", -6)):
        process = CommandProcess(shell(text, tmp_path), os.environ, guard, on_output=None)
        until(lambda process=process: process.exit_code() is not None)  # type: ignore[misc]
        assert process.exit_code() == code


def test_what_it_left_behind_ends_with_it(tmp_path: Path, guard: Guard) -> None:
    pids = tmp_path / "pids"
    process = CommandProcess(
        shell(f"sleep 1000 & echo $! > {pids}; exit 3", tmp_path), os.environ, guard, on_output=None
    )
    until(lambda: process.exit_code() is not None)
    assert process.exit_code() == 3
    assert all(is_gone(pid) for pid in started(pids, 1))


def test_stop_gives_the_whole_group_its_grace(tmp_path: Path, guard: Guard) -> None:
    """A child that still saves something is waited for, although the shell around it died at once."""
    child = "import pathlib, signal, sys, threading; done = threading.Event()\n"
    child += "signal.signal(signal.SIGTERM, lambda *_: done.set()); print(1, flush=True); done.wait()\n"
    child += "threading.Event().wait(0.3); pathlib.Path('saved').touch()"
    (tmp_path / "child.py").write_text(child)
    text = f"{sys.executable} child.py > ready & wait"
    process = CommandProcess(shell(text, tmp_path), os.environ, guard, on_output=None)
    started(tmp_path / "ready", 1)
    idles: list[int] = []
    process.stop(20.0, lambda: idles.append(1))
    assert (tmp_path / "saved").exists()
    assert idles, "the launcher shows that it lives meanwhile"


def test_what_ignores_sigterm_is_killed_after_the_grace(tmp_path: Path, guard: Guard) -> None:
    pids = tmp_path / "pids"
    text = f"trap '' TERM; sleep 1000 & echo $$ $! > {pids}; while :; do wait; done"
    process = CommandProcess(shell(text, tmp_path), os.environ, guard, on_output=None)
    leader, child = started(pids, 2)
    os.kill(leader, signal.SIGSTOP)
    began_s = time.monotonic()
    process.stop(0.2, lambda: None)
    assert time.monotonic() - began_s < 10
    assert is_gone(leader)
    assert is_gone(child)


LAUNCHER = """
import os, signal
from pathlib import Path
from trainctl.parallel.command.guard import Guard
from trainctl.parallel.command.process import CommandProcess
from trainctl.parallel.command.program import Program
folder = Path({folder!r})
text = "sleep 1000 & echo $$ $! > pids; wait"
process = CommandProcess(Program(arguments=("/bin/sh", "-c", text), folder=folder), os.environ, Guard(), on_output=None)
(folder / "watched").touch()
signal.pause()
"""


def test_sigkill_of_the_launcher_ends_the_group(tmp_path: Path) -> None:
    launcher = subprocess.Popen([sys.executable, "-c", LAUNCHER.format(folder=str(tmp_path))])
    leader, child = started(tmp_path / "pids", 2)
    until((tmp_path / "watched").exists, "the guard was not told")
    launcher.kill()
    launcher.wait()
    until(lambda: is_gone(leader) and is_gone(child), "the group outlived its launcher")


def test_output_is_handed_on_and_heard(tmp_path: Path, guard: Guard, capfd: pytest.CaptureFixture[str]) -> None:
    pulse = Pulse(HangSpec(watch=LOG), tmp_path / "beat")
    text = "echo out; echo err >&2; printf 'no newline'"
    process = CommandProcess(shell(text, tmp_path), os.environ, guard, on_output=pulse.on_output)
    until(lambda: process.exit_code() == 0)
    assert sorted(capfd.readouterr().out.split("\n")) == ["err", "no newline", "out"]
    assert pulse.heard()
    assert not pulse.heard()


def test_a_program_that_the_kernel_refuses(tmp_path: Path, guard: Guard) -> None:
    text = tmp_path / "text"
    text.write_text("no interpreter line")
    text.chmod(0o755)
    with pytest.raises(CommandUnusableError, match="cannot be started"):
        CommandProcess(Program(arguments=(str(text),), folder=tmp_path), os.environ, guard, on_output=print)


def test_heartbeats_are_touches_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "beat"
    pulse = Pulse(HangSpec(watch=HEARTBEAT), file)
    assert not pulse.heard(), "making the file is no sign of the command's life"
    os.utime(file, ns=(1, 1))
    assert pulse.heard()
    assert not pulse.heard()
    file.unlink()
    assert pulse.heard()
    pulse.close()
    unwatched = Pulse(HangSpec(watch=NOTHING), file)
    assert unwatched.heard()
    assert unwatched.on_output is None


def test_programs_are_found_as_people_expect(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("")
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)

    def found(*command: str) -> tuple[str, ...]:
        spec = JobSpec(command=command, launch=LaunchSpec(workdir=str(tmp_path)))
        return program_of(spec, own_folder=tmp_path / "own", env={"PATH": "/usr/bin:/bin"}).arguments

    assert found("train.py", "--x") == (sys.executable, "train.py", "--x")
    assert found("python", "train.py")[0] == str(Path(sys.executable).parent / "python"), "the agent's own Python"
    assert found("./tool", "1") == (str(tmp_path / "tool"), "1")
    assert found("sh", "-c", "x")[0].endswith("/sh")
    own = program_of(JobSpec(command=("sh",)), own_folder=tmp_path / "own", env=os.environ)
    assert own.folder == tmp_path / "own"
    assert own.folder.is_dir()


@pytest.mark.parametrize(
    ("command", "workdir", "part"),
    [
        ("nothing-like-this", ".", "no program 'nothing-like-this' in PATH"),
        ("./gone", ".", "found no such file"),
        ("./gone.py", ".", "expected the script"),
        ("./folder", ".", "is a folder"),
        ("./plain", ".", "is not executable"),
        ("sh", "missing", "does not exist"),
        ("sh", "plain", "is not a folder"),
    ],
)
def test_what_is_missing_is_said(tmp_path: Path, command: str, workdir: str, part: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "plain").write_text("")
    spec = JobSpec(command=(command,), launch=LaunchSpec(workdir=str(tmp_path / workdir)))
    with pytest.raises(CommandUnusableError, match=part):
        program_of(spec, own_folder=tmp_path, env=os.environ)


def test_the_jobs_folder_must_be_writable(tmp_path: Path) -> None:
    check_storage("")
    check_storage("s3://bucket/jobs/1")
    check_storage(str(tmp_path / "made"))
    assert (tmp_path / "made").is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(CommandUnusableError, match="cannot be made"):
        check_storage(str(tmp_path / "file" / "below"))
    with pytest.raises(CommandUnusableError, match=r"cannot be (made|written)"):
        check_storage("/proc/nothing")
