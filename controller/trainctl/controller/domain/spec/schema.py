"""The shape of the job file, read off the dataclasses of ``core.records.spec``: one place says what a field is."""

from __future__ import annotations

import math
import typing
from collections.abc import Mapping
from typing import Any

from trainctl.controller.domain.spec.advice import advice, is_misread, type_words, unknown_field
from trainctl.controller.domain.spec.fields import INT_LIMIT, Field, fields_of
from trainctl.controller.domain.spec.nodes import Node, Positions, kind_of
from trainctl.core.codec import is_record
from trainctl.core.errors import Problem
from trainctl.core.texts import shortened

_EXACT = 2**53
"""Free values travel as JSON, whose numbers are exact up to here."""


class Shaper:
    """Turns nodes into the wire dict of a dataclass.

    Args:
        json_form: the nodes are protobuf's JSON form: an empty list is one that was not set, ``"NaN"`` is a number.

    Attributes:
        problems: everything wrong.
        positions: of every value.
        doubtful: paths whose value is not known, since it is wrong or its key is misspelt.
    """

    def __init__(self, *, json_form: bool = False) -> None:
        self._json_form = json_form
        self.problems: list[Problem] = []
        self.positions = Positions()
        self.doubtful: set[str] = set()

    def shape(self, cls: type, node: Node, path: str = "") -> dict[str, Any]:
        """The wire dict of what is well-formed; the rest is in ``problems``."""
        self.positions.by_path[path] = (node.line, node.column)
        if not isinstance(node.value, Mapping):
            of = "" if path else f" with {', '.join(sorted(fields_of(cls)))}"
            self._problem(node, path, f"expected a mapping{of}, found {kind_of(node)}{advice(Mapping, node)}")
            return {}
        fields = fields_of(cls)
        shaped: dict[str, Any] = {}
        for name, entry in node.value.items():
            here = f"{path}.{shortened(name)}" if path else shortened(name)
            if name not in fields:
                message, meant = unknown_field(name, fields, path)
                self._problem(entry.key, here, message)
                self.doubtful.add(f"{path}.{meant}" if path else meant)
                continue
            self.positions.by_path[here] = (entry.value.line, entry.value.column)
            if self._json_form and entry.value.value == () and typing.get_origin(fields[name].type) is tuple:
                continue
            found, value = self._value(fields[name].type, entry.value, here)
            if found:
                shaped[name] = value
        self._missing(fields, node, path)
        return shaped

    def _problem(self, node: Node, path: str, message: str) -> None:
        self.problems.append(node.problem(path, message))
        self.doubtful.add(path)

    def _missing(self, fields: Mapping[str, Field], node: Node, path: str) -> None:
        assert isinstance(node.value, Mapping)
        for name, field in fields.items():
            if field.required and name not in node.value:
                self._problem(node, f"{path}.{name}" if path else name, "is required and missing")

    def _value(self, hint: Any, node: Node, path: str) -> tuple[bool, Any]:
        origin, args = typing.get_origin(hint), typing.get_args(hint)
        if hint is Any:
            return True, self._free(node, path)
        if is_record(hint):
            return True, self.shape(hint, node, path)
        if origin is tuple:
            return self._list(args[0], node, path)
        if origin is Mapping or getattr(origin, "__name__", "") == "Mapping":
            return self._mapping(args[1], node, path)
        return self._scalar(hint, node, path)

    def _list(self, item: Any, node: Node, path: str) -> tuple[bool, Any]:
        if not isinstance(node.value, tuple):
            self._problem(node, path, f"expected a list, found {kind_of(node)}{advice(tuple, node)}")
            return False, None
        for i, element in enumerate(node.value):
            self.positions.by_path[f"{path}[{i}]"] = (element.line, element.column)
        values = [self._value(item, element, f"{path}[{i}]") for i, element in enumerate(node.value)]
        return all(ok for ok, _ in values), [value for _, value in values]

    def _mapping(self, item: Any, node: Node, path: str) -> tuple[bool, Any]:
        """A mapping with keys of the user's own. What rules find wrong in it are the keys: those have the position."""
        if not isinstance(node.value, Mapping):
            self._problem(node, path, f"expected a mapping, found {kind_of(node)}{advice(Mapping, node)}")
            return False, None
        values: dict[str, tuple[bool, Any]] = {}
        for key, entry in node.value.items():
            here = f"{path}.{shortened(key)}"
            self.positions.by_path[here] = (entry.key.line, entry.key.column)
            self._no_zero_byte(key, entry.key, here)
            values[key] = self._value(item, entry.value, here)
        return all(ok for ok, _ in values.values()), {key: value for key, (_, value) in values.items()}

    def _scalar(self, hint: type, node: Node, path: str) -> tuple[bool, Any]:
        value = node.value
        if hint is bool and isinstance(value, bool) and not is_misread(node):
            return True, value
        if hint is int and isinstance(value, int) and not isinstance(value, bool) and abs(value) < INT_LIMIT:
            return True, value
        if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
            return True, float(value)
        if hint is float and self._json_form and value in ("NaN", "Infinity", "-Infinity"):
            return True, float(str(value))
        if hint is str and isinstance(value, str):
            self._no_zero_byte(value, node, path)
            return True, value
        self._problem(node, path, f"expected {type_words(hint)}, found {kind_of(node)}{advice(hint, node, path)}")
        return False, None

    def _no_zero_byte(self, text: str, node: Node, path: str) -> None:
        """Paths, programs and environments end at a zero byte, whatever comes after it."""
        if "\0" in text:
            self.problems.append(node.problem(path, "expected a text without a zero byte, found one"))

    def _free(self, node: Node, path: str) -> Any:
        """A value that this program only hands on: anything JSON can say, and nothing that YAML misreads."""
        value = node.value
        if isinstance(value, Mapping):
            return {k: self._free(entry.value, f"{path}.{shortened(k)}") for k, entry in value.items()}
        if isinstance(value, tuple):
            return [self._free(item, f"{path}[{i}]") for i, item in enumerate(value)]
        if isinstance(value, bool) and is_misread(node):
            message = f"{node.text} is read as {str(value).lower()}; write {str(value).lower()}, or put it in quotes"
            self._problem(node, path, message)
        elif isinstance(value, (int, float)) and not (math.isfinite(value) and abs(value) <= _EXACT):
            self._problem(node, path, f"expected a finite number within -2^53 and 2^53, found {kind_of(node)}")
        elif isinstance(value, str):
            self._no_zero_byte(value, node, path)
        return value
