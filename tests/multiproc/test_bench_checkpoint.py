"""``make bench-checkpoint`` in small: all sides save and load, and what comes back is what was saved.

Without it the benchmark could compare saves of which one saves nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "checkpoint.py"


def test_every_figure_is_measured(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARK), "--mib", "4", "--pairs", "1", "--worlds", "1,2", "--dir", str(tmp_path)]
    command += ["--tokens", "2", "--ways", "lazy,eager,dcp,library"]  # a process of torch's takes long to start
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode in (0, 1), done.stderr  # 1: so small a state misses the targets
    found = json.loads(done.stdout.splitlines()[-1])
    ratios = [name for name in found if "_vs_" in name]
    of_worlds = {name for name in found["targets"] if name.startswith("reshard")}
    assert set(found["targets"]) - of_worlds <= set(found)
    assert {"save_vs_dcp", "stall_library_vs_dcp_async", "rows_to_columns_vs_dcp", "rows_to_replicas_vs_dcp"} <= set(
        ratios
    )
    assert {"reshard_1to2_vs_dcp", "reshard_2to1_vs_dcp"} <= set(ratios)
    assert all(found[name] > 0 and len(found["spread"][name]) == 2 for name in ratios)
    assert found["step_slowdown_while_saving"] > 0
    assert found["bytes_on_disk_ratio"] < 1.1
    assert found["read_amplification_max"] == pytest.approx(1.0, abs=0.02)
    assert found["peak_extra_host_memory_save_ratio"] > 0.5, "a copy of the state"
    assert 0.0 <= found["peak_extra_host_memory_load_ratio"] <= found["peak_extra_host_memory_ratio"]
    assert not list(tmp_path.iterdir())
