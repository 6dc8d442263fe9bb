"""The reference pages say what the code says."""

import re
from pathlib import Path

import pytest

from architecture.reference import FOLDER, coded_errors, pages
from trainctl.core.system.faults import POINTS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "name", ["spec.md", "errors.md", "states.md", "timeouts.md", "metrics.md", "events.md", "fault-points.md"]
)
def test_reference_page_is_fresh(name: str) -> None:
    assert (FOLDER / name).read_text() == pages()[name], "stale: run `make docs`"


def test_a_code_belongs_to_one_error() -> None:
    # Two classes of one code are two rows of errors.md, and what a client rebuilds from the code is either of them.
    codes = [error.code for error in coded_errors()]
    assert {code for code in codes if codes.count(code) > 1} == set()


def test_every_fault_point_is_placed_in_the_code_and_reached_by_a_test() -> None:
    portions = ("parallel", "checkpoint", "controller", "agent")
    source = "\n".join(p.read_text() for portion in portions for p in (ROOT / portion).rglob("*.py"))
    tests = "\n".join(p.read_text() for p in (ROOT / "tests").rglob("test_*.py") if p != Path(__file__))
    for point in POINTS:
        assert f'"{point}"' in source, f"{point} is nowhere in the code"
        assert f'"{point}"' in tests, f"{point} is reached by no test"


def test_links_between_pages_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
