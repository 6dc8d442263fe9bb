"""One way to turn our frozen dataclasses into JSON-like dicts and back, strictly.

The dict is at once the protobuf JSON form of the mirrored message (lowerCamel names, see ``trainctl.protos``), the
value kept in the state store, and what an agent hands to a worker. So a record has one meaning and one spelling.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import types
import typing
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

from trainctl.core.errors import InternalError

T = TypeVar("T")

_SPECIAL_FLOATS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class WireError(InternalError):
    """A record from another process does not have the shape that this version expects."""

    code = "WIRE_MISMATCH"


def camel(name: str) -> str:
    """``applied_step`` -> ``appliedStep``, as protobuf's JSON mapping does."""
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


def to_wire(value: Any) -> Any:
    """Turns dataclasses, enums, tuples and mappings into plain JSON values; ``None`` fields are left out."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        items = ((camel(f.name), getattr(value, f.name)) for f in dataclasses.fields(value))
        return {key: to_wire(item) for key, item in items if item is not None}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, Mapping):
        return {str(key): to_wire(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_wire(item) for item in value]
    return value


def from_wire(cls: type[T], data: Any, path: str = "") -> T:
    """Builds ``cls`` from what ``to_wire`` made (or protobuf's JSON form of it).

    Unknown fields are ignored, so an older reader understands a newer writer; missing fields take the default.

    Raises:
        WireError: a field has the wrong type or a field without default is missing; names the path.
    """
    value: T = _read(cls, data, path or cls.__name__)
    return value


@cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _read_dataclass(cls: type, data: Any, path: str) -> Any:
    if not isinstance(data, Mapping):
        raise WireError(f"{path}: expected an object, found {type(data).__name__}")
    hints = _hints(cls)
    values = {}
    for field in dataclasses.fields(cls):
        key = camel(field.name)
        if key in data:
            values[field.name] = _read(hints[field.name], data[key], f"{path}.{key}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            values[field.name] = _zero(hints[field.name], f"{path}.{key}")
    return cls(**values)


def _zero(hint: Any, path: str) -> Any:
    """Protobuf's JSON form leaves zero values out: read them back as zeros, but never invent a sub-record."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType) and type(None) in typing.get_args(hint):
        return None
    if origin in (tuple, list, Sequence):
        return ()
    if origin in (dict, Mapping):
        return {}
    if isinstance(hint, type) and hint in (int, float, str, bool):
        return hint()
    raise WireError(f"{path}: missing")


def _read(hint: Any, data: Any, path: str) -> Any:
    hint = getattr(hint, "__supertype__", hint)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if data is None:
            return None
        (inner,) = [a for a in args if a is not type(None)]
        return _read(inner, data, path)
    if origin is tuple or origin is list or origin is Sequence:
        if not isinstance(data, Sequence) or isinstance(data, str):
            raise WireError(f"{path}: expected a list, found {type(data).__name__}")
        return tuple(_read(args[0], item, f"{path}[{i}]") for i, item in enumerate(data))
    if origin is dict or origin is Mapping:
        if not isinstance(data, Mapping):
            raise WireError(f"{path}: expected an object, found {type(data).__name__}")
        return {str(key): _read(args[1], item, f"{path}.{key}") for key, item in data.items()}
    if hint is Any or hint is object:
        return _plain(data)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _read_dataclass(hint, data, path)
    return _read_scalar(hint, data, path)


def _plain(data: Any) -> Any:
    """Free JSON: protobuf's form of it knows no whole numbers, so whole ones come back as such."""
    if isinstance(data, Mapping):
        return {str(key): _plain(item) for key, item in data.items()}
    if isinstance(data, (list, tuple)):
        return [_plain(item) for item in data]
    return int(data) if isinstance(data, float) and data.is_integer() else data


def _read_scalar(hint: Any, data: Any, path: str) -> Any:
    try:
        if isinstance(hint, type) and issubclass(hint, enum.Enum):
            return hint(data)
        if hint is bool and isinstance(data, bool):
            return data
        if hint is int and isinstance(data, (int, str, float)) and not isinstance(data, bool):
            if isinstance(data, float) and not data.is_integer():
                raise ValueError(data)
            return int(data)
        if hint is float and isinstance(data, (int, float, str)) and not isinstance(data, bool):
            return _SPECIAL_FLOATS[data] if isinstance(data, str) else float(data)
        if hint is str and isinstance(data, str):
            return data
    except (ValueError, KeyError, OverflowError):
        pass
    raise WireError(f"{path}: expected {getattr(hint, '__name__', hint)}, found {data!r}")
