"""Each field of the job file, at every level: misspelt, of the wrong type, written twice.

Without it a misspelt field could be ignored in silence.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Mapping

import pytest

from trainctl.controller.domain.spec import parse_job
from trainctl.controller.domain.spec.fields import fields_of
from trainctl.core.errors import Problem, SpecError
from trainctl.core.records.spec import TrainJob

_WRONG = {int: "many", float: "many", bool: "1", str: "5", Mapping: "text", tuple: "text"}


def walk(cls: type, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], type]]:
    """Every field and its kind; those of the entries of a list are below ``[0]``."""
    for name, field in fields_of(cls).items():
        here = (*path, name)
        origin, arguments = typing.get_origin(field.type), typing.get_args(field.type)
        if dataclasses.is_dataclass(field.type) and isinstance(field.type, type):
            yield here, Mapping
            yield from walk(field.type, here)
        elif origin is None:
            yield here, field.type
        else:
            yield here, tuple if origin is tuple else Mapping
            if dataclasses.is_dataclass(arguments[0]) and isinstance(arguments[0], type):
                yield from walk(arguments[0], (*here, "[0]"))


FIELDS = [pytest.param(path, kind, id=".".join(path).replace(".[", "[")) for path, kind in walk(TrainJob)]


def written(path: tuple[str, ...], key: str, *values: str) -> tuple[str, int, int]:
    """A job file in which ``key`` stands for the last part of ``path``; its line, its value's column."""
    lines, indent = [], 0
    for part in path[:-1]:
        lines.append(f"{' ' * indent}- #" if part == "[0]" else f"{' ' * indent}{part}:")
        indent += 2
    line = len(lines) + 1
    lines += [f"{' ' * indent}{key}: {value}" for value in values]
    if path[0] != "metadata":
        lines.append("metadata: {name: a}")
    return "\n".join(lines), line, indent + len(key) + 3


def problems(text: str) -> tuple[Problem, ...]:
    with pytest.raises(SpecError) as caught:
        parse_job(text, source="job.yaml")
    return caught.value.problems


def dotted(*parts: str) -> str:
    return ".".join(parts).replace(".[", "[")


@pytest.mark.parametrize(("path", "kind"), FIELDS)
def test_a_misspelt_field_is_named_with_the_right_one(path: tuple[str, ...], kind: type) -> None:
    name = path[-1]
    for misspelt in (f"{name}z", name[:1] + name[2:], name.upper()):
        text, line, column = written(path, misspelt, "1")
        found = {p.path: p for p in problems(text)}[dotted(*path[:-1], misspelt)]
        assert (found.line, found.column) == (line, column - len(misspelt) - 2)
        assert found.message.startswith("unknown field")
        assert f'"{name}"' in found.message or name in found.message.split("known here: ")[-1]


@pytest.mark.parametrize(("path", "kind"), FIELDS)
def test_a_value_of_the_wrong_type_is_shown_where_it_stands(path: tuple[str, ...], kind: type) -> None:
    text, line, column = written(path, path[-1], _WRONG[kind])
    found = {p.path: p for p in problems(text)}[dotted(*path)]
    assert (found.line, found.column) == (line, column)
    assert found.message.startswith("expected ")
    assert f", found the {'number' if _WRONG[kind].isdigit() else 'text'} " in found.message


@pytest.mark.parametrize(("path", "kind"), FIELDS)
def test_a_field_written_twice_is_shown_where_it_is_repeated(path: tuple[str, ...], kind: type) -> None:
    text, line, _ = written(path, path[-1], "x", "x")
    found = next(p for p in problems(text) if "duplicate" in p.message)
    assert (found.path, found.line) == (dotted(*path), line + 1)
    assert found.message.endswith(f"first on line {line}")
