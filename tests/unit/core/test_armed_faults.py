"""Without it a test could ask for a fault that never comes, and be green for a failure that nobody tried."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from multiproc.armed_faults import ArmedFaults, fault
from trainctl.core.system.faults import FaultPlan


def test_a_fault_that_no_process_came_to_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faults = ArmedFaults(tmp_path / "marks", [fault("vote.in", "raise", slot=1), fault("apply.in", "raise", step=3)])
    for name, value in faults.environment.items():
        monkeypatch.setenv(name, value)
    plan = FaultPlan()
    with pytest.raises(
        AssertionError, match=r"raise at point vote\.in where \{'slot': 1\} was never reached\nthe fault "
    ):
        faults.check()
    with pytest.raises(RuntimeError, match=r"injected at vote\.in"):
        plan.reach("vote.in", slot=1)
    assert (faults.reached(0), faults.reached(1)) == (True, False)
    with pytest.raises(AssertionError, match=r"raise at point apply\.in where \{'step': 3\} was never reached"):
        faults.check()
    with pytest.raises(RuntimeError, match=r"injected at apply\.in"):
        plan.reach("apply.in", step=3)
    faults.check()
    assert [one["point"] for one in json.loads(faults.environment["TRAINCTL_FAULTS"])] == ["vote.in", "apply.in"]


def test_a_point_that_is_not_there_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"no such fault point: vote\.befor; known: step\.compute"):
        ArmedFaults(tmp_path, [fault("vote.before"[:-1])])
