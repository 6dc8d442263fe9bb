"""The reference pages say what the code says.

Without it people would look up fields, errors and metrics that are not there any more.
"""

import re
from pathlib import Path

import pytest

from architecture.reference import FOLDER, pages

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "name", ["spec.md", "errors.md", "states.md", "timeouts.md", "metrics.md", "events.md", "fault-points.md"]
)
def test_reference_page_is_fresh(name: str) -> None:
    assert (FOLDER / name).read_text() == pages()[name], "stale: run `make docs`"


def test_links_between_pages_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
