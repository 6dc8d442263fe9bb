"""Without it a file of tests could stay of which nobody knows what it is for, and nobody dares to remove it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parents[1]


def test_every_file_of_tests_says_what_would_break_without_it() -> None:
    silent = []
    for path in sorted(TESTS.rglob("test_*.py")):
        purpose = ast.get_docstring(ast.parse(path.read_text())) or ""
        words = re.search(r"\bWithout (?:it|this)\b(.*?)\.(?:\s|$)", purpose, re.DOTALL)
        if words is None or len(words[1].split()) < 6:
            silent.append(str(path.relative_to(TESTS)))
    assert not silent, f"their docstrings lack a sentence `Without it ...`: what a user would suffer: {silent}"


def test_what_tests_share_is_in_a_file_of_its_own() -> None:
    """Else a test cannot be moved or removed without a look at all others."""
    shared = []
    for path in sorted(TESTS.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").rpartition(".")[2].startswith("test_"):
                shared.append(f"{path.relative_to(TESTS)}:{node.lineno}")
    assert not shared, f"move what they import into a file beside the tests that is not named test_*: {shared}"
