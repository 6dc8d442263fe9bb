"""The demo cleans up after itself, whatever ends it.

Without it whoever tries the demo and presses Ctrl-C could be left with processes and a taken port.
"""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from e2e.local_system import TRAINCTL
from e2e.process_tree import processes_of
from waiting import PATIENCE_S, until

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_when_the_demo_is_ended(number: signal.Signals, corpus: Path, tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    home = folder / "home"
    command = [TRAINCTL, "demo", "--dir", str(folder), "--corpus", str(corpus)]
    env = {**os.environ, "NO_COLOR": "1", "TRAINCTL_HOME": str(home)}  # by which its processes are found
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env) as demo:
        assert demo.stdout is not None
        said = [next(line for line in demo.stdout if "job.starting" in line)]
        assert len(processes_of(home / "local")) >= 5
        demo.send_signal(number)
        said += demo.stdout.readlines()
        code = demo.wait(PATIENCE_S)
    until(
        lambda: not processes_of(home / "local"),
        lambda: f"left behind: {processes_of(home / 'local')}\n{''.join(said)}",
    )
    until(lambda: not home.exists(), lambda: f"{home} is still there")
    if number != signal.SIGKILL:
        assert code == 130
        assert "interrupted: the demo has stopped and cleaned up after itself" in said[-1]
