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
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any, TypeGuard, TypeVar, cast

from trainctl.core.errors import InternalError
from trainctl.core.plain import is_list, is_mapping, is_sequence
from trainctl.core.texts import shortened

T = TypeVar("T")

_PLAIN = frozenset({str, int, bool, type(None)})
_SPECIAL_FLOATS: Mapping[str, float] = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class WireError(InternalError):
    """A record from another process does not have the shape that this version expects."""

    code = "WIRE_MISMATCH"


def camel(name: str) -> str:
    """``applied_step`` -> ``appliedStep``, as protobuf's JSON mapping does."""
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


def is_record(hint: object) -> TypeGuard[type[Any]]:
    """Whether the type of a field is a dataclass, which is read and written field by field."""
    return isinstance(hint, type) and dataclasses.is_dataclass(hint)


def to_wire(value: object) -> Any:
    """Turns dataclasses, enums, tuples and mappings into plain JSON values; ``None`` fields are left out."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if type(value) is float:  # not ``kind``: this a type checker follows
        return value if math.isfinite(value) else _special(value)
    if kind is tuple or kind is list:
        return [to_wire(item) for item in cast("Sequence[object]", value)]
    if dataclasses.is_dataclass(kind):
        items = ((key, getattr(value, name)) for key, name in _keys(kind))
        return {key: item if type(item) in _PLAIN else to_wire(item) for key, item in items if item is not None}
    if isinstance(value, enum.Enum):
        return value.value
    if is_mapping(value):
        return {str(key): to_wire(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_wire(item) for item in cast("Sequence[object]", value)]
    return value


def _special(value: float) -> str:
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")


@cache
def _keys(cls: type) -> tuple[tuple[str, str], ...]:
    """Spelling on the wire and name of each field."""
    return tuple((camel(field.name), field.name) for field in dataclasses.fields(cls))


def from_wire(cls: type[T], data: Any, path: str = "") -> T:
    """Builds ``cls`` from what ``to_wire`` made (or protobuf's JSON form of it).

    Unknown fields are ignored, so an older reader understands a newer writer; missing fields take the default.

    Raises:
        WireError: a field has the wrong type or a field without default is missing; names the path.
    """
    try:
        hint: Any = cls
        value: T = _reader(hint)(data)
    except _MismatchError as problem:
        raise WireError(f"{path or cls.__name__}{problem.where}: {problem.what}") from None
    return value


_Reader = Callable[[Any], Any]
_ABSENT = object()


class _MismatchError(Exception):
    """What is wrong, and where inside of what is read: the way to it is put together on the way out."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.where = ""

    def inside(self, part: str) -> _MismatchError:
        self.where = part + self.where
        return self


class _Field(typing.NamedTuple):
    name: str
    key: str
    exact: type | None
    """Values of exactly this type are what they are."""
    read: _Reader
    zero: Callable[[], Any] | None
    """What an absent one reads as; None: its default."""


@cache
def _fields(cls: type) -> tuple[_Field, ...]:
    hints = typing.get_type_hints(cls)
    found: list[_Field] = []
    for field in dataclasses.fields(cls):
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        hint = hints[field.name]
        zero = partial(_zero, hint) if required else None
        found.append(_Field(field.name, camel(field.name), _exact(hint), _reader(hint), zero))
    return tuple(found)


def _exact(hint: Any) -> type | None:
    hint = getattr(hint, "__supertype__", hint)
    return hint if hint in (str, int, bool) else None


def _zero(hint: Any) -> Any:
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
    raise _MismatchError("missing")


@cache
def _reader(hint: Any) -> _Reader:
    """What reads values of a type; looked up once a type, not once a value."""
    hint = getattr(hint, "__supertype__", hint)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        (inner,) = [a for a in args if a is not type(None)]
        return partial(_read_optional, _reader(inner))
    if origin is tuple or origin is list or origin is Sequence:
        return partial(_read_list, _reader(args[0]), frozenset({_exact(args[0])}))
    if origin is dict or origin is Mapping:
        return partial(_read_mapping, _reader(args[1]))
    if hint is Any or hint is object:
        return _plain
    if is_record(hint):
        return partial(_read_dataclass, hint)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return partial(_read_enum, hint)
    return partial(_read_scalar, hint)


def _read_dataclass(cls: type, data: Any) -> Any:
    if not is_mapping(data):
        raise _MismatchError(f"expected an object, found {type(data).__name__}")
    values: dict[str, Any] = {}
    key = ""
    try:
        for name, key, exact, read, zero in _fields(cls):
            value = data.get(key, _ABSENT)
            if type(value) is exact:
                values[name] = value
            elif value is not _ABSENT:
                values[name] = read(value)
            elif zero is not None:
                values[name] = zero()
    except _MismatchError as problem:
        raise problem.inside(f".{key}") from None
    return cls(**values)


def _read_optional(inner: _Reader, data: Any) -> Any:
    return None if data is None else inner(data)


def _read_list(inner: _Reader, exact: frozenset[type | None], data: Any) -> tuple[Any, ...]:
    if not is_sequence(data):
        raise _MismatchError(f"expected a list, found {type(data).__name__}")
    if exact.issuperset(map(type, data)):
        return tuple(data)
    items: list[Any] = []
    try:
        for item in data:
            items.append(inner(item))
    except _MismatchError as problem:
        raise problem.inside(f"[{len(items)}]") from None
    return tuple(items)


def _read_mapping(inner: _Reader, data: Any) -> dict[str, Any]:
    if not is_mapping(data):
        raise _MismatchError(f"expected an object, found {type(data).__name__}")
    items: dict[str, Any] = {}
    for key, item in data.items():
        try:
            items[str(key)] = inner(item)
        except _MismatchError as problem:
            raise problem.inside(f".{key}") from None
    return items


def _plain(data: Any) -> Any:
    """Free JSON: protobuf's form of it knows no whole numbers, so whole ones come back as such."""
    if is_mapping(data):
        return {str(key): _plain(item) for key, item in data.items()}
    if isinstance(data, (list, tuple)):
        return [_plain(item) for item in cast("Sequence[object]", data)]
    return int(data) if isinstance(data, float) and data.is_integer() else data


def _read_enum(kind: type[enum.Enum], data: Any) -> enum.Enum:
    try:
        return kind(data)
    except (ValueError, KeyError, OverflowError):
        raise _unfit(kind, data) from None


def _read_scalar(hint: Any, data: Any) -> Any:
    if type(data) is hint and hint is not float:
        return data
    try:
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
    raise _unfit(hint, data)


def _unfit(hint: Any, data: object) -> _MismatchError:
    found = type(data).__name__ if is_mapping(data) or is_list(data) else shortened(repr(data))
    return _MismatchError(f"expected {getattr(hint, '__name__', hint)}, found {found}")
