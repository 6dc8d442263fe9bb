"""The demo's guard ends an installation that nobody else will.

Without it a terminal that is closed would leave the demo's processes running.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from trainctl.cli.demo.guard import start
from trainctl.core.system.file_lock import FileLock
from waiting import PATIENCE_S

pytestmark = pytest.mark.multiproc


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Of a demo whose controller has ended."""
    home = tmp_path / "home"
    (home / "local").mkdir(parents=True)
    record = {"pid": 2**22, "start_ticks": 1, "address": "127.0.0.1:1", "metrics_address": "", "version": "1"}
    (home / "local" / "controller.json").write_text(json.dumps({**record, "started_s": 0.0}))
    return home


@pytest.fixture
def lock(tmp_path: Path) -> FileLock:
    """The demo's lock, which names this process."""
    lock = FileLock(tmp_path / ".demo.lock")
    assert lock.acquire()
    return lock


def guard_of_a_dead_demo(home: Path) -> subprocess.Popen[bytes]:
    """Its input ended."""
    guard = start(home, {**os.environ, "TRAINCTL_HOME": str(home)})
    assert guard.stdin is not None
    guard.stdin.close()
    return guard


def test_the_guard_waits_for_the_lock_of_the_demo_that_died(home: Path, lock: FileLock) -> None:
    # The kernel closes a killed process's files one after the other: the guard's pipe first, then the lock.
    guard = guard_of_a_dead_demo(home)
    with pytest.raises(subprocess.TimeoutExpired):
        guard.wait(2)
    lock.release()
    assert guard.wait(PATIENCE_S) == 0
    assert not home.exists()


def test_the_guard_leaves_a_folder_to_the_next_demo(home: Path, lock: FileLock) -> None:
    (home.parent / ".demo.lock").write_text("1\n")
    assert guard_of_a_dead_demo(home).wait(PATIENCE_S) == 0
    assert home.exists()
    lock.release()
