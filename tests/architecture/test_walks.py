"""The walks through the code name functions that exist. Without it, after a rename, a page would mislead."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from architecture.pages import ROOT, anchors, inline_code

WALKS = sorted((ROOT / "docs" / "walks").glob("*.md"))
PAGES = [pytest.param(page, id=page.name) for page in WALKS]
LEAST = 10
"""Places that a walk names; one that names fewer tells a story."""
_NAMED = re.compile(r"[\w./-]+\.py::[\w.]+")


def named_in(page: Path) -> list[str]:
    """Places of the code that a page names as ``path.py::Name``."""
    return [code for code in inline_code(page) if _NAMED.fullmatch(code)]


@cache
def names_of(file: Path) -> frozenset[str]:
    """Functions, classes, their methods and attributes, and constants of a file, as ``Class.method``."""
    return frozenset(_names(ast.parse(file.read_text()).body, ""))


def _names(body: list[ast.stmt], prefix: str) -> list[str]:
    found: list[str] = []
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found.append(f"{prefix}{node.name}")
        if isinstance(node, ast.ClassDef):
            found += _names(node.body, f"{prefix}{node.name}.")
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found += [f"{prefix}{target.id}" for target in targets if isinstance(target, ast.Name)]
    return found


def missing(code: str) -> str:
    """Why a place that a page names is not there; empty if it is."""
    path, _, name = code.partition("::")
    if not (ROOT / path).is_file():
        return f"{code}: there is no file {path}"
    return "" if name in names_of(ROOT / path) else f"{code}: {path} has no {name}"


def test_there_are_walks() -> None:
    assert {"spec.md", "death.md"} <= {page.name for page in WALKS}


@pytest.mark.parametrize("page", PAGES)
def test_every_place_on_the_way_exists(page: Path) -> None:
    named = named_in(page)
    assert len(set(named)) >= LEAST, f"{page.name} names {len(set(named))} places"
    lost = [why for why in map(missing, named) if why]
    assert not lost, f"{page.name} names what is not there: {lost}; follow the way again, and mend the page"
    misspelled = [code for code in inline_code(page) if ".py" in code and "::" in code and not _NAMED.fullmatch(code)]
    assert not misspelled, f"{page.name}: expected path/from/root.py::Class.method, found {misspelled}"


@pytest.mark.parametrize("page", PAGES)
def test_every_walk_says_where_it_goes_round(page: Path) -> None:
    assert "roundabouts" in anchors(page), f"{page.name} has no section Roundabouts"


def test_a_place_that_moved_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "walk.md"
    page.write_text("From `a.py::B.c` to `d.py::e`.\n```text\n`f.py::g`\n```\nAnd `h`, `i.py`, `j.py::k\nl`.\n")
    assert named_in(page) == ["a.py::B.c", "d.py::e"]
    here = str(Path(__file__).relative_to(ROOT))
    assert not missing(f"{here}::missing")
    assert not missing(f"{here}::LEAST")
    assert "no file" in missing("no/such.py::name")
    assert "has no never" in missing(f"{here}::never")
    assert not missing("controller/trainctl/controller/reconciler.py::Reconciler.write_desired")
    assert "has no Reconciler.never" in missing("controller/trainctl/controller/reconciler.py::Reconciler.never")
