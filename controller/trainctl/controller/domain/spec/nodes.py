"""A value of the job file together with where it stands: what every check needs for a good message."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from trainctl.core.errors import Problem
from trainctl.core.plain import is_mapping, is_sequence
from trainctl.core.texts import shortened

Scalar = str | int | float | bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One value with its position (0 where it did not come from a text).

    Attributes:
        value: a scalar, a tuple of nodes, or a mapping from key to ``Entry``.
        line: 1-based.
        column: 1-based.
        text: how a scalar was written, for messages.
    """

    value: Scalar | tuple[Node, ...] | Mapping[str, Entry]
    line: int = 0
    column: int = 0
    text: str = ""

    def problem(self, path: str, message: str) -> Problem:
        """A problem at this value."""
        return Problem(path=path, message=message, line=self.line, column=self.column)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A key with its own position, and its value."""

    key: Node
    value: Node


_PATH = re.compile(r"spec\.[\w.]+")


@dataclass(slots=True)
class Positions:
    """Positions of the values by dotted path, so that rules about several values can point at one of them."""

    by_path: dict[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])

    def problem(self, path: str, message: str) -> Problem:
        """A problem at ``path``, with the position of what was written of it.

        That is the value itself, or the first of those that the message names by path, or the nearest parent.
        """
        named = (word.rstrip(".") for word in _PATH.findall(message))
        probe = next((name for name in (path, *named) if name in self.by_path), path)
        while probe and probe not in self.by_path:
            probe = probe[: max(probe.rfind("."), probe.rfind("["), 0)]
        line, column = self.by_path.get(probe, (0, 0))
        return Problem(path=path, message=message, line=line, column=column)


def kind_of(node: Node) -> str:
    """What a value is, in words of the job file."""
    value = node.value
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, tuple):
        return "a list"
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return f"the boolean {node.text or str(value).lower()}"
    if isinstance(value, (int, float)):
        return f"the number {node.text or value}"
    return f'the text "{shortened(value)}"'


def from_plain(value: object) -> Node:
    """Nodes without positions, from JSON-like data."""
    if is_mapping(value):
        entries = {str(k): Entry(key=Node(value=str(k)), value=from_plain(v)) for k, v in value.items()}
        return Node(value=entries)
    if is_sequence(value):
        return Node(value=tuple(from_plain(item) for item in value))
    if value is None or isinstance(value, (str, int, float, bool)):
        return Node(value=value, text=str(value).lower() if isinstance(value, bool) else str(value))
    return Node(value=str(value), text=str(value))


def to_plain(node: Node) -> object:
    """JSON-like data, positions forgotten."""
    if isinstance(node.value, Mapping):
        return {key: to_plain(entry.value) for key, entry in node.value.items()}
    if isinstance(node.value, tuple):
        return [to_plain(item) for item in node.value]
    return node.value
