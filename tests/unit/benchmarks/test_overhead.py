"""``make bench-overhead``: turns are compared with their neighbours, and a side that does not train is an error.

Without it a figure in the docs could compare a side that did nothing.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import overhead
from benchmarks.turns import Turn, descendants, signal_tree, take_turns, tree_cpu_s
from benchmarks.workload import Workload


def test_only_what_was_committed_inside_a_turn_counts() -> None:
    commits = [(step, 10.0 + step / 2) for step in range(40)]
    turn = Turn("trainctl", 12.0, 16.0, cpu_s=8.0)
    assert turn.steps_per_s(commits) == pytest.approx(2.0)
    assert turn.cpu_per_step_s(commits) == pytest.approx(1.0)
    assert Turn("trainctl", 100.0, 101.0, cpu_s=1.0).steps_per_s(commits) == 0.0


def test_the_report_compares_neighbours_and_drops_the_first_pair(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    workload = Workload()
    turns: list[Turn] = []
    figures: list[SimpleNamespace] = []
    lines: list[str] = []
    for number, ratio in enumerate((5.0, 0.8, 1.0, 1.2)):
        for side, rate in ((overhead.OURS, 4.0 * ratio), (overhead.DDP, 4.0)):
            begin_s = 1000.0 + 20 * number + (10 if side == overhead.DDP else 0)
            turns.append(Turn(side, begin_s, begin_s + 8, cpu_s=8.0))
            at = [begin_s + index / rate for index in range(1, int(8 * rate))]
            if side == overhead.OURS:
                figures += [SimpleNamespace(step=len(figures), wall_s=at_s, vote_s=0.002, generation=1) for at_s in at]
            else:
                lines += [f"{len(lines)} {at_s:.6f}" for at_s in at]
    (log := tmp_path / "steps.log").write_text("".join(f"{line}\n" for line in lines))
    assert overhead.report(workload, turns, figures, log, 8.0) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["throughput_ratio_vs_ddp"] == pytest.approx(1.0, abs=1e-3)
    assert (found["throughput_ratio_min"], found["throughput_ratio_max"]) == pytest.approx((0.8, 1.2), abs=1e-3)
    assert (found["pairs"], found["vote_ms"], found["recoveries"]) == (3, 2.0, 0)


def test_a_broken_peer_is_an_error_with_its_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (torchrun := tmp_path / "torchrun").write_text("#!/bin/sh\necho no such backend >&2\nexit 3\n")
    torchrun.chmod(0o755)
    monkeypatch.setattr(overhead.sys, "executable", str(tmp_path / "python"))  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match="no such backend"), overhead.plain_ddp(Workload(), tmp_path):
        pass


def loops(pids: Sequence[int]) -> bool:
    """Whether the child is the program that it was started for: before, its parent waits for it and cannot stop."""
    return len(pids) > 1 and Path(f"/proc/{pids[-1]}/cmdline").read_bytes().endswith(b"\0while True: pass\0")


def test_one_side_at_a_time_has_the_machine_with_all_that_it_started() -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'while True: pass'])"
    sides = {name: subprocess.Popen([sys.executable, "-c", code]) for name in ("a", "b")}
    try:
        for process in sides.values():
            while not loops(descendants(process.pid)):
                assert process.poll() is None
        used_s = {}
        for turn in take_turns({name: process.pid for name, process in sides.items()}, turns=2, seconds=0.3):
            (other,) = set(sides) - {turn.side}
            used_s[turn.side] = tree_cpu_s(sides[turn.side].pid)
            states = [
                Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
                for pid in descendants(sides[other].pid)
            ]
            assert set(states) == {"T"}, "the other side is stopped as a whole"
            assert turn.cpu_s > 0
    finally:
        for process in sides.values():
            signal_tree(process.pid, signal.SIGKILL)
            process.wait()
    assert all(seconds > 0 for seconds in used_s.values())
    assert all(not os.path.exists(f"/proc/{process.pid}") for process in sides.values())
