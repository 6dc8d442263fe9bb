"""Fault points as they stand in the sources: where the product reaches them, and which tests name them."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

from trainctl.core.system.faults import POINTS

ROOT = Path(__file__).parents[2]
_PORTIONS = ("protos", "parallel", "checkpoint", "controller", "agent")
_TAKES_A_POINT = {"fault": 0, "stops": 0, "pair": 0, "armed": 1}
"""Functions of tests, and which of their arguments it is."""


def reached_in_the_code() -> Iterator[tuple[str, str]]:
    """Place and point of each call of ``reach`` in the product; a point that is no literal is ``""``.

    What hands a point on as its own parameter ``point`` is left out: its callers name the point.
    """
    for path in sorted(path for portion in _PORTIONS for path in (ROOT / portion).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and _name(node.func).lstrip("_") == "reach":
                point = node.args[0]
                if isinstance(point, ast.Constant) and isinstance(point.value, str):
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", point.value
                elif isinstance(node.func, ast.Attribute) and _name(point) != "point":
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", ""


def named_by_tests() -> dict[str, set[str]]:
    """Files that name each point, in a test that runs without ``make chaos``."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for text in _always_run(ast.parse(path.read_text())):
            if text in POINTS:
                found.setdefault(text, set()).add(path.name)
    return found


def asked_for_by_tests() -> Iterator[tuple[str, str]]:
    """Place and point of each fault that a test or a helper of tests asks for with a literal."""
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            for value in _points_of(node):
                if isinstance(value, ast.Constant):
                    yield f"{path.relative_to(ROOT)}:{value.lineno}", str(value.value)


def _points_of(node: ast.AST) -> Iterator[ast.expr]:
    """Of ``fault("point", ...)``, ``{"point": ...}``, ``parametrize("point", [...])`` and helpers that take a point."""
    if isinstance(node, ast.Dict):
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant) and key.value == "point":
                yield value
    elif isinstance(node, ast.Call) and node.args:
        at = _TAKES_A_POINT.get(_name(node.func), len(node.args))
        yield from node.args[at : at + 1]
        if (
            _name(node.func) == "parametrize"
            and isinstance(node.args[0], ast.Constant)
            and node.args[0].value == "point"
        ):
            yield from (part for part in ast.walk(node.args[1]) if isinstance(part, ast.Constant))


def _always_run(node: ast.AST) -> Iterator[str]:
    """All texts in it but those of tests and cases that only ``make chaos`` runs."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    if isinstance(node, ast.Call) and (
        _name(node.func) == "in_chaos" or _is_chaos(k.value for k in node.keywords if k.arg == "marks")
    ):
        return
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and any(
        _name(mark) == "chaos" for mark in node.decorator_list
    ):
        return
    for child in ast.iter_child_nodes(node):
        yield from _always_run(child)


def _is_chaos(marks: Iterable[ast.expr]) -> bool:
    return any(_name(part) == "chaos" for mark in marks for part in ast.walk(mark))


def _name(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
