"""The mutants of ``make mutants``: what is changed and what not, which are tried, by which tests.

Without it the figure could say that decisions are checked which were never changed.
"""

from __future__ import annotations

import ast
from types import ModuleType

import pytest

from architecture.coverage_figures import CORE, IMPURE
from mutation.mutants import Mutant, code, mutants, sample, sources
from mutation.operators import changes
from mutation.passing import Passing

PAUSES = "protos/trainctl/core/pauses.py"


def changed(text: str) -> list[str]:
    """The text after each change, one line each."""
    found = []
    for number in range(len(list(changes(ast.parse(text))))):
        tree = ast.parse(text)
        list(changes(tree))[number].make()
        found.append("; ".join(line.strip() for line in ast.unparse(ast.fix_missing_locations(tree)).splitlines()))
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a < b", ["a <= b", "a >= b"]),
        ("a == b != c", ["a != b != c", "a == b == c"]),
        ("a in b", ["a not in b"]),
        ("a + b * c", ["a - b * c", "a + b / c"]),
        ("a and b", ["a or b"]),
        ("not a", ["a"]),
        ("a = 2", ["a = 3"]),
        ("a = True", ["a = False"]),
        ("a = 'b'", ["a = ''"]),
        ("a if b else c", ["a if True else c", "a if False else c"]),
        ("[a for a in b if c]", ["[a for a in b]"]),
        ("if a: b", ["if True:; b", "if False:; b"]),
        ("while a: break", ["while False:; break", "while a:; continue"]),
        ("def a(b): return b", ["def a(b):; return None"]),
        ("def a(b=1): pass", ["def a(b=2):; pass"]),
        ("def a(b):; b = c".replace("; ", "\n "), ["def a(b):; pass"]),
        ("a.b = c", ["pass"]),
        ("a += b", []),
        ("a(b)", ["pass"]),
        ("raise a('b')", ["pass"]),
    ],
)
def test_each_decision_is_changed(text: str, expected: list[str]) -> None:
    assert changed(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "'What it is for.'",
        "a: Literal[1, 2]",
        "@dataclass(frozen=True)\nclass A:\n    b: int",
        "__all__ = ['a']",
        "if TYPE_CHECKING:\n    a = 1",
        "a = 'so many words'",
        "a = f'{b + 1}'",
        "a = PlanError('b', 1)",
        "log.info('b')",
        "def a():\n    b = c",
        "def a():\n    return None",
    ],
)
def test_what_is_no_decision_is_left_alone(text: str) -> None:
    assert changed(text) == []


def test_a_sample_is_spread_over_the_files_and_the_same_for_a_seed() -> None:
    many = [Mutant(path, number, 1, "") for path, count in (("a", 60), ("b", 30), ("c", 10)) for number in range(count)]
    chosen = sample(many, 10, seed=1)
    assert [one.path for one in chosen] == ["a"] * 6 + ["b"] * 3 + ["c"]
    assert chosen == sample(many, 10, seed=1) != sample(many, 10, seed=2)
    assert sample(many, 1000, seed=1) == many


def test_every_part_of_the_pure_core_has_mutants_and_what_talks_to_the_system_none() -> None:
    found = sources()
    assert all(any(path.startswith(folder) for path in found) for folder in CORE.values())
    assert not any(path.startswith(IMPURE) for path in found)


def test_the_changed_module_is_what_runs() -> None:
    (mutant,) = [one for one in mutants([PAUSES]) if one.what == "2.0  ->  3.0"]
    module = ModuleType(mutant.module)
    exec(code(mutant), module.__dict__)
    assert (mutant.module, mutant.part) == ("trainctl.core.pauses", "trainctl.core")
    assert module.doubled_s(1.0, 2, 100.0) == 9.0


def test_a_mutant_is_judged_by_the_tests_that_pass_its_line_the_quickest_first() -> None:
    passing = Passing()
    passing.take(
        {
            "seconds": {"a::slow": 7.0, "a::quick": 0.1, "b::other": 0.2, "b::slower": 8.0, "b::late": 0.3},
            "lines": {PAUSES: {"14": [0, 1, 3, 4], "24": [2]}},
            "broken": ["b::late"],
        }
    )

    def tests(line: int) -> dict[str, list[str]]:
        return {file: list(found) for file, found in passing.tests(Mutant(PAUSES, 0, line, "")).items()}

    assert tests(14) == {"a": ["a::quick", "a::slow"]}  # the slower one does not fit the time
    assert tests(24) == {"b": ["b::other"]}
    assert tests(7) == {"a": ["a::quick", "a::slow"], "b": ["b::other"]}  # run by an import alone
