"""Ends the demo's installation if the demo itself is killed: a process that waits for its standard input to end."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from trainctl.core.errors import ConflictError
from trainctl.core.system.deadline import Deadline, comes_true
from trainctl.core.system.file_lock import UNKNOWN_HOLDER, FileLock

_POLL_S = 0.2
_LATE_START_S = 10.0
"""How long a controller may take to appear that was being started when the demo was killed."""
_PATIENCE_S = 40.0
"""How long a new demo waits for the guard of the last one."""


@contextmanager
def only_demo(folder: Path) -> Generator[None, None, None]:
    """Holds the folder against other demos and their guards.

    Raises:
        ConflictError: another demo runs in it.
    """
    lock = FileLock(folder / ".demo.lock")
    try:
        if not comes_true(lock.acquire, Deadline(_PATIENCE_S), _POLL_S):
            hint = "wait for it, or choose another folder with --dir"
            raise ConflictError(f"another demo (process {lock.holder}) is at work in {folder}", hint=hint)
        yield
    finally:
        lock.release()


def start(home: Path, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Starts the guard; its standard input ends with this process, however that dies.

    Args:
        home: the demo's TRAINCTL_HOME; as long as it is there, the demo has not cleaned up.
        env: of the demo.
    """
    command = [sys.executable, "-m", "trainctl.cli.demo.guard", str(home), str(os.getpid())]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet, env=dict(env), start_new_session=True
    )


def clean_up(home: Path, env: Mapping[str, str]) -> None:
    """Ends every process of a demo that was killed, and removes its home; what cannot be ended keeps its home."""
    comes_true((home / "local" / "controller.json").exists, Deadline(_LATE_START_S), _POLL_S)
    if _down(env):
        shutil.rmtree(home, ignore_errors=True)


def _down(env: Mapping[str, str]) -> bool:
    from trainctl.cli.main import main

    with open(os.devnull, "w") as nowhere:
        return main(("local", "down", "--purge", "-y"), out=nowhere, err=nowhere, env=env) == 0


def _guard(home: Path, demo_pid: str) -> None:
    sys.stdin.buffer.read()
    lock = FileLock(home.parent / ".demo.lock")
    while not lock.acquire():
        if lock.holder not in (demo_pid, UNKNOWN_HOLDER):
            return  # the next demo is there already, and cleans up itself
        time.sleep(_POLL_S)  # of a killed process the kernel closes one file after the other: this one is next
    if home.exists():
        clean_up(home, os.environ)


if __name__ == "__main__":
    _guard(Path(sys.argv[1]), sys.argv[2])
