"""Without it a crash could leave half a file, a signal hit a stranger's process, and a misspelt fault never come."""

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from trainctl.core.errors import PermissionDeniedError
from trainctl.core.system.faults import FAULTS_DIR_VARIABLE, FAULTS_VARIABLE, FaultPlan
from trainctl.core.system.files import write_atomically
from trainctl.core.system.processes import (
    ProcessId,
    end_child,
    end_processes,
    identify,
    is_alive,
    send_signal,
    wait_for_end,
)


def test_atomic_write_replaces_whole_files(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_atomically(path, b"one")
    write_atomically(path, b"two", mode=0o600)
    assert path.read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["a.json"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_pid_that_was_taken_over_is_never_signalled() -> None:
    own = identify(os.getpid())
    assert own is not None
    assert is_alive(own)
    somebody_else = ProcessId(pid=own.pid, start_ticks=own.start_ticks - 1)
    assert not is_alive(somebody_else)
    assert not send_signal(somebody_else, signal.SIGKILL)


def test_a_zombie_is_not_alive() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = identify(child.pid)
    assert process is not None
    assert is_alive(process)
    assert send_signal(process, signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not is_alive(process)
    child.communicate()


_SLEEPER = "import signal; {}; print('up', flush=True); signal.pause()"


@contextmanager
def sleeper(how: str = "pass") -> Iterator[tuple[subprocess.Popen[bytes], ProcessId]]:
    child = subprocess.Popen([sys.executable, "-c", _SLEEPER.format(how)], stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        child.stdout.readline()
        process = identify(child.pid)
        assert process is not None
        yield child, process
    finally:
        child.kill()
        child.communicate()


def test_only_what_does_not_obey_is_killed() -> None:
    with sleeper() as (obedient, first), sleeper("signal.signal(signal.SIGTERM, signal.SIG_IGN)") as (stubborn, second):
        gone = ProcessId(pid=first.pid, start_ticks=first.start_ticks - 1)
        assert wait_for_end([gone, first, second], 0.0) == [first, second]
        assert end_processes([gone, first, second], 0.3) == [second]
        assert (obedient.wait(), stubborn.wait()) == (-signal.SIGTERM, -signal.SIGKILL)
        assert end_processes([first, second], 0.3) == []


def test_a_process_of_somebody_else_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    with sleeper() as (_, process), monkeypatch.context() as patch:
        patch.setattr(os, "kill", refuse)
        with pytest.raises(PermissionDeniedError, match=f"process {process.pid} belongs to somebody else"):
            end_processes([process], 1.0)


def test_a_child_that_is_ended_is_reaped() -> None:
    with sleeper() as (child, process):
        end_child(child, 5.0)
        assert (child.returncode, identify(child.pid)) == (-signal.SIGTERM, None)
        end_child(child, 5.0)
        assert not is_alive(process)


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "a.json"
    write_atomically(path, b"one")
    for name in ("write", "fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, full)
            with pytest.raises(OSError, match="No space left"):
                write_atomically(path, b"two")
        assert os.listdir(tmp_path) == ["a.json"]
        assert path.read_bytes() == b"one"


def test_fault_fires_once_over_processes_and_only_where_it_matches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = {"point": "vote.before", "action": "raise", "where": {"slot": 1, "step": 3}}
    monkeypatch.setenv(FAULTS_VARIABLE, json.dumps([entry]))
    monkeypatch.setenv(FAULTS_DIR_VARIABLE, str(tmp_path))
    plan, replacement = FaultPlan(), FaultPlan()
    plan.reach("vote.before", slot=1, step=2)
    plan.reach("vote.after", slot=1, step=3)
    with pytest.raises(RuntimeError, match=r"injected at vote\.before"):
        plan.reach("vote.before", slot=1, step=3)
    plan.reach("vote.before", slot=1, step=3)
    replacement.reach("vote.before", slot=1, step=3)


def test_a_fault_may_wait_for_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = {"point": "vote.in", "action": "raise", "skip": 1, "after": str(tmp_path / "now")}
    monkeypatch.setenv(FAULTS_VARIABLE, json.dumps([entry]))
    plan = FaultPlan()
    for _ in range(3):
        plan.reach("vote.in")
    (tmp_path / "now").touch()
    plan.reach("vote.in")
    with pytest.raises(RuntimeError, match=r"injected at vote\.in"):
        plan.reach("vote.in")


def test_misspelt_fault_point_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FAULTS_VARIABLE, '[{"point": "vote.befor", "action": "kill"}]')
    with pytest.raises(ValueError, match=r"unknown fault point 'vote\.befor'"):
        FaultPlan()
