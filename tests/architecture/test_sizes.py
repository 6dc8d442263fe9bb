"""The code is within the budgets of ``budgets.toml``, and what measures it measures what it says.

Without it files and functions grow until nobody finds what a user's error came from.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from architecture.sizes import (
    PORTIONS,
    ROOT,
    Source,
    file_lengths,
    function_lengths,
    mutable_globals,
    num_comments,
    num_docstring_lines,
    repeated,
    share,
    sources,
    unannotated,
    undocumented,
)

BUDGETS: dict[str, Any] = tomllib.loads((Path(__file__).parent / "budgets.toml").read_text())


Part = tuple[tuple[Source, ...], dict[str, Any]]


@pytest.fixture(scope="module")
def product() -> tuple[Source, ...]:
    return sources(ROOT, PORTIONS)


@pytest.fixture(scope="module", params=["product", "tests"])
def part(request: pytest.FixtureRequest, product: tuple[Source, ...]) -> Part:
    """What is measured, and its budgets."""
    return product if request.param == "product" else sources(ROOT, ("tests",)), BUDGETS[request.param]


def test_a_file_is_one_idea(part: Part) -> None:
    files, budget = part[0], part[1]["file_lines"]
    lengths = file_lengths(files)
    assert {path: lines for path, lines in lengths.items() if lines > budget["most"]} == {}
    assert share(lengths.values(), 0.5) <= budget["median"]
    assert share(lengths.values(), 0.9) <= budget["p90"]


def test_a_function_fits_a_screen(part: Part) -> None:
    files, budget = part[0], part[1]["function_lines"]
    over = {where for where, lines in function_lengths(files).items() if lines > budget["most"]}
    assert {where.rpartition(":")[0] for where in over} - set(BUDGETS["over"]["functions"]) == set()


def test_what_is_over_a_budget_is_still_there(product: tuple[Source, ...]) -> None:
    most = BUDGETS["product"]["function_lines"]["most"]
    over = {where.rpartition(":")[0] for where, lines in function_lengths(product).items() if lines > most}
    assert set(BUDGETS["over"]["functions"]) - over == set(), "within the budget now: take the line out of [over]"


def test_everything_has_its_types(part: Part) -> None:
    assert part[1]["annotated"]["least_percent"] == 100
    assert unannotated(part[0]) == []


def test_no_run_of_lines_stands_in_two_places(part: Part) -> None:
    files, budget = part[0], part[1]["duplicates"]
    assert [str(run) for run in repeated(files, budget["longer_than"])][budget["most"] :] == []


def test_every_public_name_says_what_it_is(product: tuple[Source, ...]) -> None:
    assert BUDGETS["product"]["documented"]["least_percent"] == 100
    assert undocumented(product) == []


def test_no_module_holds_what_others_can_change(product: tuple[Source, ...]) -> None:
    found = mutable_globals(product)
    assert found[BUDGETS["product"]["mutable_globals"]["most"] :] == []


def source(text: str, name: str = "a.py") -> Source:
    return Source.of(Path(name), text)


def names(found: Iterable[str]) -> list[str]:
    return [where.partition(" ")[2].partition(":")[0] for where in found]


def test_functions_are_measured_with_what_is_in_them() -> None:
    file = source(
        "@mark\ndef outer(\n    a: int,\n) -> None:\n    def inner(b): ...\n\n\nasync def last(*, c: int): ...\n"
    )
    assert {where: lines for where, lines in function_lengths([file]).items()} == {
        "a.py outer:2": 4,
        "a.py inner:5": 1,
        "a.py last:8": 1,
    }
    assert names(unannotated([file])) == ["last", "inner"]
    assert file_lengths([file, source("", "b/__init__.py")]) == {"a.py": 8}


def test_a_public_name_is_one_without_an_underscore_whose_docstring_is_its_own() -> None:
    text = '''"""Module."""
class Said:
    """Yes."""
    def method(self): ...
    def _own(self): ...
    @override
    def inherited(self): ...
def _private(): ...
def silent():
    def within(): ...
'''
    assert names(undocumented([source(text)])) == ["method", "silent"]
    assert num_docstring_lines([source(text)]) == 2
    assert num_comments([source("a = 1  # one\n# two\nb = '# none'\n")]) == 2


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        ("A = {}", True),
        ("A: dict[str, int] = dict()", True),
        ("A = [n for n in B]", True),
        ("A = collections.deque()", True),
        ("def f():\n    global A", True),
        ("A: Mapping[str, int] = {'a': 1}", False),
        ("A = (1, 2)", False),
        ("A = frozenset({1})", False),
        ("__all__ = ['f']", False),
        ("def f():\n    a = {}", False),
    ],
)
def test_a_global_that_can_change_is_found(text: str, changes: bool) -> None:
    assert bool(mutable_globals([source(text)])) is changes


def test_a_run_is_found_once_in_its_full_length_wherever_it_stands() -> None:
    block = [f"{name} = {number}" for number, name in enumerate("abcdefghij")]
    once = "\n".join(["import os", *block, "x = 1"])
    within = [f"    {line}" for line in block]
    again = "\n".join(["if True:", *within[:4], "    # why", "", *within[4:]])
    files = [source(once, "a.py"), source(again, "b.py")]
    (run,) = repeated(files, 8)
    assert (run.num_lines, run.first, run.second) == (10, (Path("a.py"), 2), (Path("b.py"), 2))
    assert not repeated(files, 10)
    assert not repeated([source("\n".join(["f()"] * 12))], 8), "a run that overlaps itself"


def test_the_share_of_values() -> None:
    assert [share(range(1, 11), of) for of in (0.5, 0.9, 1.0)] == [6, 10, 10]
    assert share([], 0.5) == 0
