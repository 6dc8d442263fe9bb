"""Examples in the docs are what the code accepts."""

import re
from pathlib import Path

import pytest

from trainctl.controller.domain.spec import parse_job

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES = [
    pytest.param(block, id=f"{page.name}-{index}")
    for page in PAGES
    for index, block in enumerate(re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL))
]


@pytest.mark.parametrize("text", EXAMPLES)
def test_job_file_of_the_docs_is_valid(text: str) -> None:
    assert parse_job(text, source="docs").spec.train.steps > 0


def test_every_make_target_of_the_docs_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        for target in re.findall(r"`make ([a-z-]+)", page.read_text()):
            assert target in targets, f"{page.name}: make {target}"


def test_every_command_of_the_docs_exists() -> None:
    known = (ROOT / "docs" / "cli.md").read_text()
    for page in PAGES:
        for command in re.findall(r"^trainctl ([a-z]+)", page.read_text(), re.MULTILINE):
            assert f"trainctl {command}" in known, f"{page.name}: trainctl {command}"
