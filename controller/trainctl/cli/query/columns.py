"""``-o custom-columns=NAME:.path,...``: a table of one's own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any as Value

from trainctl.cli.query.ast import Path
from trainctl.cli.query.errors import ExpressionError
from trainctl.cli.query.reader import Reader
from trainctl.cli.query.select import select
from trainctl.cli.query.template import text_of

_HINT = "for example -o custom-columns=JOB:.spec.metadata.name,PHASE:.status.phase"
NONE = "<none>"


@dataclass(frozen=True, slots=True)
class Column:
    """A header and where its values come from."""

    name: str
    path: Path


def read_columns(text: str) -> tuple[Column, ...]:
    """The columns of ``A:.x,B:.y``.

    Raises:
        ExpressionError: it is no such list; says where.
    """
    reader = Reader(text)
    columns: list[Column] = []
    while True:
        colon = text.find(":", reader.position)
        name = text[reader.position : colon].strip() if colon >= 0 else ""
        if not name or "," in name:
            raise ExpressionError(text, reader.position, "expected NAME:.path", hint=_HINT)
        reader.position = colon + 1
        columns.append(Column(name, reader.path()))
        reader.space()
        if reader.position == len(text):
            return tuple(columns)
        reader.need(",")


def cells(columns: Sequence[Column], row: Value) -> list[str]:
    """One row of the table."""
    return [",".join(_texts(select(column.path, row))) or NONE for column in columns]


def _texts(values: Iterable[Value]) -> list[str]:
    return [text_of(value) for value in values if value is not None]
