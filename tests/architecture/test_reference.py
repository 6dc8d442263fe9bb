"""The reference pages say what the code says.

Without it people would look up fields, errors and metrics that are not there any more.
"""

import re
from pathlib import Path

import pytest

from architecture.reference import FOLDER, coded_errors, pages

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


def test_links_between_pages_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
