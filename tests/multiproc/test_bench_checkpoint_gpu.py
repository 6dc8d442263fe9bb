"""``make bench-checkpoint-gpu`` in small, on the CPU: all sides copy, ours what the state was.

Without it the benchmark could compare copies of which one copies nothing, found out on a lent device.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import checkpoint_gpu

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "checkpoint_gpu.py"
SMALL = ("--layers", "1", "--hidden", "64", "--context", "16", "--rows", "1", "--tokens", "32", "--steps", "2")


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARK), *arguments]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, capture_output=True, text=True, timeout=150, check=False, env=environment)


def test_every_figure_is_measured() -> None:
    done = bench("--device", "cpu", *SMALL, "--pairs", "2")
    assert done.returncode in (0, 1), done.stderr  # 1: so small a step misses the target
    found = json.loads(done.stdout.splitlines()[-1])
    for word in ("thread", "process"):
        assert found[f"dcp_{word}_stall_share"] > 0
        assert found[f"gpu_stall_vs_dcp_{word}"] > 0
        assert found[f"dcp_{word}_step_slowdown"] > 0
    assert found["gpu_stall_share"] > 0
    assert found["gpu_step_slowdown"] > 0
    assert found["step_s"] > 0
    assert found["copy_s"] > 0
    assert found["copy_at_limit_s"] == pytest.approx(
        found["state_bytes"] / found["to_host_pinned_bytes_per_s"], abs=1e-4
    )
    assert found["state_bytes"] <= found["host_bytes"] < 1.1 * found["state_bytes"]
    assert found["state_bytes"] > 12 * found["parameters"], "parameters and two moments"
    assert found["targets"] == {"gpu_stall_share": 0.02}
    assert found["device"] == "cpu"
    assert {"gpu_stall_share", "gpu_step_slowdown"} <= set(found["spread"])


def test_without_a_device_it_says_so_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [str(BENCHMARK)])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as caught:
        checkpoint_gpu.main()
    assert caught.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: expected a CUDA device, found none (torch ")
    assert said.err.count("\n") == 1
