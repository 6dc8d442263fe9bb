"""The shape of the job file, read off the dataclasses of ``core.records.spec``: one place says what a field is."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any

from trainctl.controller.domain.spec.nodes import Node, Positions, kind_of, shortened, to_plain
from trainctl.core.codec import camel
from trainctl.core.errors import Problem

_WORDS: Mapping[type, str] = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
_REJECTED_WORDS = frozenset({"yes", "no", "on", "off", "y", "n"})
_INT_LIMIT = 2**31


class Shaper:
    """Turns nodes into the wire dict of a dataclass; remembers every problem and the position of every value."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.positions = Positions()

    def shape(self, cls: type, node: Node, path: str = "") -> dict[str, Any]:
        """The wire dict of what is well-formed; the rest is in ``problems``."""
        self.positions.by_path[path] = (node.line, node.column)
        if not isinstance(node.value, Mapping):
            name = path or "the job file"
            self.problems.append(node.problem(path, f"expected a mapping for {name}, found {kind_of(node)}"))
            return {}
        fields = _fields(cls)
        shaped: dict[str, Any] = {}
        for name, entry in node.value.items():
            here = f"{path}.{shortened(name)}" if path else shortened(name)
            if name not in fields:
                self.problems.append(entry.key.problem(here, f"unknown field{_nearest(name, fields)}"))
                continue
            self.positions.by_path[here] = (entry.value.line, entry.value.column)
            found, value = self._value(fields[name].type, entry.value, here)
            if found:
                shaped[name] = value
        self._missing(fields, node, path)
        return shaped

    def _missing(self, fields: Mapping[str, _Field], node: Node, path: str) -> None:
        assert isinstance(node.value, Mapping)
        for name, field in fields.items():
            if field.required and name not in node.value:
                here = f"{path}.{name}" if path else name
                self.problems.append(node.problem(here, "is required and missing"))

    def _value(self, hint: Any, node: Node, path: str) -> tuple[bool, Any]:
        origin, args = typing.get_origin(hint), typing.get_args(hint)
        if hint is Any:
            return True, to_plain(node)
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            return True, self.shape(hint, node, path)
        if origin is tuple:
            return self._list(args[0], node, path)
        if origin is Mapping or getattr(origin, "__name__", "") == "Mapping":
            return self._mapping(args[1], node, path)
        return self._scalar(hint, node, path)

    def _list(self, item: Any, node: Node, path: str) -> tuple[bool, Any]:
        if not isinstance(node.value, tuple):
            self.problems.append(node.problem(path, f"expected a list, found {kind_of(node)}"))
            return False, None
        for i, element in enumerate(node.value):
            self.positions.by_path[f"{path}[{i}]"] = (element.line, element.column)
        values = [self._value(item, element, f"{path}[{i}]") for i, element in enumerate(node.value)]
        return all(ok for ok, _ in values), [value for _, value in values]

    def _mapping(self, item: Any, node: Node, path: str) -> tuple[bool, Any]:
        if not isinstance(node.value, Mapping):
            self.problems.append(node.problem(path, f"expected a mapping, found {kind_of(node)}"))
            return False, None
        values = {key: self._value(item, entry.value, f"{path}.{key}") for key, entry in node.value.items()}
        return all(ok for ok, _ in values.values()), {key: value for key, (_, value) in values.items()}

    def _scalar(self, hint: type, node: Node, path: str) -> tuple[bool, Any]:
        value = node.value
        word = node.text.lower() in _REJECTED_WORDS
        if hint is bool and isinstance(value, bool) and not word:
            return True, value
        if hint is int and isinstance(value, int) and not isinstance(value, bool) and abs(value) < _INT_LIMIT:
            return True, value
        if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
            return True, float(value)
        if hint is str and isinstance(value, str):
            return True, value
        self.problems.append(node.problem(path, f"expected {_WORDS[hint]}, found {kind_of(node)}{_advice(hint, node)}"))
        return False, None


@dataclasses.dataclass(frozen=True, slots=True)
class _Field:
    type: Any
    required: bool


@cache
def _fields(cls: type) -> Mapping[str, _Field]:
    hints = typing.get_type_hints(cls)
    missing = dataclasses.MISSING
    return {
        camel(f.name): _Field(hints[f.name], f.default is missing and f.default_factory is missing)
        for f in dataclasses.fields(cls)
    }


def _nearest(name: str, fields: Mapping[str, _Field]) -> str:
    lowered = {field.lower(): field for field in fields}
    probe = name.replace("_", "").replace("-", "").lower()
    close = difflib.get_close_matches(probe, lowered, n=1, cutoff=0.6)
    if close:
        return f' (did you mean "{lowered[close[0]]}"?)'
    return f" (known here: {', '.join(sorted(fields))})"


def _advice(hint: type, node: Node) -> str:
    value = node.value
    if hint is str and isinstance(value, (bool, int, float)):
        spelled = shortened(node.text or str(value))
        return f'; YAML reads it so, put it in quotes: "{spelled}"'
    if hint is bool and node.text.lower() in _REJECTED_WORDS:
        return "; write true or false"
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        return f"; it must lie within -{_INT_LIMIT} and {_INT_LIMIT}"
    if hint in (int, float) and isinstance(value, str) and value.replace("_", "").isdigit():
        return "; write it without quotes and leading zeros"
    return ""
