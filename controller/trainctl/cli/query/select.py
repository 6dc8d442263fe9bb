"""What a path leads to, and whether a predicate holds. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any as Value

from trainctl.cli.query.ast import (
    Below,
    Comparison,
    Every,
    Everything,
    Filter,
    Index,
    Literal,
    Name,
    Not,
    Path,
    Predicate,
    Slice,
    Step,
    Union,
)
from trainctl.core.plain import is_list, is_mapping

_ORDER: Mapping[str, Callable[[Value, Value], bool]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def select(path: Path, value: Value) -> list[Value]:
    """All values that ``path`` leads to from ``value``; a step that leads nowhere ends there, without an error."""
    values = [value]
    for step in path.steps:
        values = [found for each in values for found in _follow(step, each)]
    return values


def holds(predicate: Predicate, value: Value) -> bool:
    """Whether the predicate is true of ``value``."""
    if isinstance(predicate, Comparison):
        return _compare(predicate, value)
    if isinstance(predicate, Not):
        return not holds(predicate.part, value)
    if isinstance(predicate, Every):
        return all(holds(part, value) for part in predicate.parts)
    return any(holds(part, value) for part in predicate.parts)


def _follow(step: Step, value: Value) -> Iterator[Value]:
    if isinstance(step, Union):
        for part in step.steps:
            yield from _follow(part, value)
    elif isinstance(step, Name):
        if is_mapping(value) and step.name in value:
            yield value[step.name]
    elif isinstance(step, Everything):
        yield from _inside(value)
    elif isinstance(step, Below):
        for below in _all_below(value):
            if not step.name:
                yield below
            elif is_mapping(below) and step.name in below:
                yield below[step.name]
    elif is_list(value):
        yield from _from_list(step, value)


def _from_list(step: Index | Slice | Filter, values: list[Value]) -> Iterator[Value]:
    if isinstance(step, Index):
        if -len(values) <= step.number < len(values):
            yield values[step.number]
    elif isinstance(step, Slice):
        yield from values[step.begin : step.end : step.step]
    else:
        yield from (value for value in values if holds(step.predicate, value))


def _all_below(value: Value) -> Iterator[Value]:
    yield value
    for each in _inside(value):
        yield from _all_below(each)


def _inside(value: Value) -> Iterable[Value]:
    return value.values() if is_mapping(value) else value if is_list(value) else ()


def _compare(comparison: Comparison, value: Value) -> bool:
    left = _values(comparison.left, value)
    if comparison.right is None:
        return any(each not in (None, False, "", 0, [], {}) for each in left)
    right = _values(comparison.right, value)
    if comparison.operator == "!=":
        return not any(_same(a, b) for a in left for b in right)
    if comparison.operator == "==":
        return any(_same(a, b) for a in left for b in right)
    if comparison.operator == "=~":
        return any(isinstance(a, str) and re.search(b, a) is not None for a in left for b in right)
    order = _ORDER[comparison.operator]
    return any(order(a, b) for a in left for b in right if _ordered(a, b))


def _values(operand: Path | Literal, value: Value) -> list[Value]:
    return [operand.value] if isinstance(operand, Literal) else select(operand, value)


def _same(a: Value, b: Value) -> bool:
    """Python calls 1 and True equal; here they are not."""
    return isinstance(a, bool) == isinstance(b, bool) and bool(a == b)


def _ordered(a: Value, b: Value) -> bool:
    numbers = (int, float)
    return (isinstance(a, str) and isinstance(b, str)) or (isinstance(a, numbers) and isinstance(b, numbers))
