"""The fields of the job file by name, read off its dataclasses."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from trainctl.core.codec import camel, is_record
from trainctl.core.records.spec import TrainJob

INT_LIMIT = 2**31


@dataclasses.dataclass(frozen=True, slots=True)
class Field:
    """What a mapping may hold under one name."""

    type: Any
    required: bool


@cache
def fields_of(cls: type) -> Mapping[str, Field]:
    """The fields of a dataclass by their names in the job file."""
    hints = typing.get_type_hints(cls)
    missing = dataclasses.MISSING
    return {
        camel(f.name): Field(hints[f.name], f.default is missing and f.default_factory is missing)
        for f in dataclasses.fields(cls)
    }


@cache
def places_of(name: str) -> tuple[str, ...]:
    """Paths of all fields with this name, entries of lists left out."""
    return tuple(path for path in _paths(TrainJob, "") if path.rpartition(".")[2] == name)


def _paths(cls: type, parent: str) -> Iterator[str]:
    for name, field in fields_of(cls).items():
        path = f"{parent}.{name}" if parent else name
        yield path
        if is_record(field.type):
            yield from _paths(field.type, path)
