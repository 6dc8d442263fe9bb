"""``make bench-checkpoint`` in small: all sides save and load, and what comes back is what was saved."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "checkpoint.py"


@pytest.mark.timeout(300)
def test_every_figure_is_measured(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARK), "--mib", "16", "--pairs", "1", "--worlds", "1,2", "--dir", str(tmp_path)]
    command += ["--tokens", "2", "--ways", "lazy,eager,dcp,library"]  # a process of torch's takes long to start
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode in (0, 1), done.stderr  # 1: so small a state misses the targets
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["bytes_on_disk_ratio"] < 1.1
    ratios = [name for name in found if "_vs_" in name]
    assert {"save_vs_raw_write", "load_cold_vs_dcp", "reshard_1to2_vs_dcp", "reshard_2to1_vs_dcp"} <= set(ratios)
    assert {"stall_vs_memcpy", "stall_lazy_vs_dcp_async", "step_slowdown_vs_dcp"} <= set(ratios)
    assert "stall_library_vs_dcp_async" in ratios
    assert found["step_slowdown_while_saving"] > 0
    assert 0.5 < found["peak_extra_host_memory_save_ratio"] < 8, "a copy of the state, and what so small a one hides"
    assert 0.0 <= found["peak_extra_host_memory_load_ratio"] <= found["peak_extra_host_memory_ratio"] < 8
    assert all(found[name] > 0 and len(found["spread"][name]) == 2 for name in ratios)
    assert not list(tmp_path.iterdir())
