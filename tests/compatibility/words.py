"""Where the messages of the wire carry a word of a closed list, found in their descriptors."""

from __future__ import annotations

import dataclasses
import enum
import importlib
import pkgutil
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from trainctl.core import records

LATER = "levitating"
"""A word that no version has."""


@dataclass(frozen=True)
class Spot:
    """A field that carries words.

    Attributes:
        path: names of fields, from the outermost message in.
        words: the list; None: the message's own enum.
    """

    path: tuple[str, ...]
    words: type[enum.Enum] | None

    def __str__(self) -> str:
        return ".".join(self.path)

    def put(self, message: Message, word: str) -> None:
        """Says ``word`` there; of repeated messages in the first."""
        inner: Any = message
        for name in self.path[:-1]:
            inner = getattr(inner, name)
            if hasattr(inner, "add"):
                inner = inner[0] if len(inner) else inner.add()
        setattr(inner, self.path[-1], word)


@cache
def record_types() -> dict[str, type]:
    """The records that messages mirror, by name."""
    return {one.__name__: one for one in _types() if dataclasses.is_dataclass(one)}


def word_lists() -> set[type]:
    """All lists of words that the records know."""
    return {one for one in _types() if issubclass(one, enum.Enum) and one.__members__}


def _types() -> Iterator[type]:
    for module in pkgutil.iter_modules(records.__path__, f"{records.__name__}."):
        yield from (value for value in vars(importlib.import_module(module.name)).values() if isinstance(value, type))


def spots(message: Descriptor, path: tuple[str, ...] = ()) -> Iterator[Spot]:
    """All fields of a message, however deep, that carry words."""
    if message.full_name.startswith("google."):
        return
    record = record_types().get(message.name)
    hints = typing.get_type_hints(record) if record is not None else {}
    for field in message.fields:
        here = (*path, field.name)
        words = _words_in(hints.get(field.name))
        if words is not None or field.enum_type is not None:
            yield Spot(here, words)
        elif field.message_type is not None:
            yield from spots(field.message_type, here)


def _words_in(hint: Any) -> type[enum.Enum] | None:
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return hint
    return next((found for inner in typing.get_args(hint) if (found := _words_in(inner)) is not None), None)
