"""The figures of ``make coverage`` count lines and branches, and what talks to the system is not the pure core.

Without it the figure could be high while decisions that nobody tried reach users.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from architecture.coverage_figures import CORE, IMPURE, figures, main
from architecture.pages import ROOT


def file(lines: tuple[int, int], branches: tuple[int, int]) -> dict[str, Any]:
    names = ("covered_lines", "num_statements", "covered_branches", "num_branches")
    return {"summary": dict(zip(names, (*lines, *branches), strict=True))}


def test_lines_and_branches_of_all_files_count_alike() -> None:
    found = figures(
        {
            "files": {
                "protos/trainctl/core/units.py": file((8, 8), (1, 2)),
                "protos/trainctl/core/ids.py": file((10, 10), (0, 0)),
                f"{IMPURE}pipes.py": file((0, 30), (0, 10)),
                "checkpoint/trainctl/checkpoint/layout/key.py": file((5, 10), (5, 10)),
                "agent/trainctl/agent/app.py": file((0, 30), (0, 0)),
            }
        }
    )
    assert (found["trainctl.core"], found["trainctl.checkpoint.layout"]) == (95.0, 50.0)
    assert found["the pure core"] == 100 * 29 / 40
    assert found["everything"] == 100 * 29 / 110


def test_the_folders_are_there() -> None:
    assert all((ROOT / folder).is_dir() for folder in (*CORE.values(), IMPURE))


@pytest.mark.parametrize(("passed", "code"), [(89, 1), (90, 0)])
def test_a_core_below_its_budget_fails(passed: int, code: int, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    report.write_text(json.dumps({"files": {"protos/trainctl/core/units.py": file((passed, 100), (0, 0))}}))
    assert main(report) == code
