"""Ends the demo's installation if the demo itself is killed: a process that waits for its standard input to end."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


def start(home: Path, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Starts the guard; its standard input ends with this process, however that dies.

    Args:
        home: the demo's TRAINCTL_HOME; as long as it is there, the demo has not cleaned up.
        env: of the demo.
    """
    command = [sys.executable, "-m", "trainctl.cli.demo.guard", str(home)]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet, env=dict(env), start_new_session=True
    )


def clean_up(home: Path) -> None:
    """Ends every process of the demo's installation, and removes it."""
    from trainctl.cli.main import main

    with open(os.devnull, "w") as nowhere:
        main(("local", "down", "--purge", "-y"), out=nowhere, err=nowhere, env=os.environ)
    shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    sys.stdin.buffer.read()
    if Path(sys.argv[1]).exists():
        clean_up(Path(sys.argv[1]))
