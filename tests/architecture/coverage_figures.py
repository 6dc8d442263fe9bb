"""The figures of ``make coverage``: lines and branches that the tests passed, of the pure core and overall."""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CORE: Mapping[str, str] = {
    "trainctl.core": "protos/trainctl/core/",
    "trainctl.controller.domain": "controller/trainctl/controller/domain/",
    "trainctl.parallel.plan": "parallel/trainctl/parallel/plan/",
    "trainctl.checkpoint.layout": "checkpoint/trainctl/checkpoint/layout/",
}
BUDGETS = Path(__file__).parent / "budgets.toml"
ALL_OF_CORE = "the pure core"
IMPURE = "protos/trainctl/core/system/"
"""The part of the core that talks to the operating system (docs/adr/0002)."""


def percent(files: Mapping[str, Any], *below: str) -> float:
    """Of the lines and branches of the files in some folders, those that were passed.

    Args:
        files: of a report as ``coverage json`` writes it.
        below: folders; none: everything.
    """
    found = [file["summary"] for path, file in files.items() if not below or path.startswith(below)]
    passed: int = sum(one["covered_lines"] + one["covered_branches"] for one in found)
    all_of_it: int = sum(one["num_statements"] + one["num_branches"] for one in found)
    return 100 * passed / max(1, all_of_it)


def figures(report: Mapping[str, Any]) -> dict[str, float]:
    """Percent of each part of the pure core, of all of it, and of everything."""
    files: dict[str, Any] = report["files"]
    pure = {path: file for path, file in files.items() if not path.startswith(IMPURE)}
    parts = {name: percent(pure, folder) for name, folder in CORE.items()}
    return {**parts, ALL_OF_CORE: percent(pure, *CORE.values()), "everything": percent(files)}


def main(report: Path) -> int:
    """Prints the figures of a report; 1 if the pure core is below its budget."""
    least = tomllib.loads(BUDGETS.read_text())["product"]["coverage"]["core_least_percent"]
    found = figures(json.loads(report.read_text()))
    for name, value in found.items():
        print(f"{name:<28} {value:5.1f} %")
    if found[ALL_OF_CORE] < least:
        print(f"expected {least} % of the pure core at least (tests/architecture/budgets.toml)", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
