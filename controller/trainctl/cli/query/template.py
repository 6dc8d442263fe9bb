"""``-o jsonpath=``: a path, or a text with paths in braces, and ``{range PATH}...{end}`` as kubectl has it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any as Value

from trainctl.cli.query.ast import Literal, Path
from trainctl.cli.query.errors import ExpressionError
from trainctl.cli.query.reader import Reader, read_path
from trainctl.cli.query.select import select

_RANGE = re.compile(r"\s*range\s")
_END = re.compile(r"\s*end\s*\}")


@dataclass(frozen=True, slots=True)
class Range:
    """A part of the template that is repeated for each value of a path."""

    path: Path
    parts: tuple[Part, ...]


Part = Path | Literal | Range


def read_template(text: str) -> tuple[Part, ...]:
    """The parts of a template.

    Raises:
        ExpressionError: it cannot be read; says where.
    """
    if "{" not in text:
        return (read_path(text),)
    reader = Reader(text)
    parts = _read_parts(reader, begin=None)
    return tuple(parts)


def render(parts: Sequence[Part], value: Value) -> str:
    """The template filled from ``value``; several values of one path are separated by a space."""
    return "".join(_render(part, value) for part in parts)


def text_of(value: Value) -> str:
    """A value as people and shells want it: texts without quotes, the rest as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _render(part: Part, value: Value) -> str:
    if isinstance(part, Literal):
        return str(part.value)
    if isinstance(part, Range):
        return "".join(render(part.parts, each) for each in select(part.path, value))
    return " ".join(text_of(found) for found in select(part, value))


def _read_parts(reader: Reader, *, begin: int | None) -> list[Part]:
    """Parts up to the end of the text or, inside of a range that began at ``begin``, up to its ``{end}``."""
    parts: list[Part] = []
    while reader.position < len(reader.text):
        brace = reader.text.find("{", reader.position)
        until = brace if brace >= 0 else len(reader.text)
        if until > reader.position:
            parts.append(Literal(reader.text[reader.position : until]))
        reader.position = until
        if brace < 0:
            break
        reader.position += 1
        if reader.match(_END):
            if begin is None:
                raise ExpressionError(reader.text, brace, "{end} without {range}")
            return parts
        if reader.match(_RANGE):
            path = reader.path()
            reader.need("}")
            parts.append(Range(path, tuple(_read_parts(reader, begin=brace))))
        else:
            parts.append(_read_one(reader))
            reader.need("}")
    if begin is not None:
        raise ExpressionError(reader.text, begin, "this {range} has no {end}")
    return parts


def _read_one(reader: Reader) -> Path | Literal:
    reader.space()
    if reader.text[reader.position : reader.position + 1] in ("'", '"'):
        return Literal(reader.string())
    return reader.path()
