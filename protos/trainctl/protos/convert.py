"""Records to messages and back: through the one JSON-like form that both sides share (``core.codec``).

The same as protobuf's own JSON mapping, except that 64-bit numbers stay numbers; made for speed: a heartbeat is such a
message. The messages that mirror records have no enums, no bytes and no ``oneof``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, TypeVar

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from trainctl.core.codec import WireError, from_wire, to_wire
from trainctl.core.plain import is_mapping

M = TypeVar("M", bound=Message)
R = TypeVar("R")

_FLOATS = frozenset({FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT})
_WHOLE = frozenset(
    {
        FieldDescriptor.CPPTYPE_INT32,
        FieldDescriptor.CPPTYPE_INT64,
        FieldDescriptor.CPPTYPE_UINT32,
        FieldDescriptor.CPPTYPE_UINT64,
    }
)
_FREE = "google.protobuf."
"""Free JSON inside of a message: left to protobuf."""


def record_to_message(record: Any, message_type: type[M]) -> M:
    """Turns a record (or its wire dict) into the message that mirrors it.

    Raises:
        WireError: the record has a field that the message lacks, or a value that does not fit.
    """
    try:
        return _build(message_type, to_wire(record))
    except (json_format.ParseError, KeyError, TypeError, ValueError) as error:
        raise WireError(f"{message_type.__name__}: {error}") from error


def message_to_dict(message: Message) -> Mapping[str, Any]:
    """The wire dict of a message, zeros included, so that a zero is never mistaken for a default."""
    return _read(message)


def message_to_record(message: Message, record_type: type[R]) -> R:
    """Turns a message into the record it mirrors.

    Raises:
        WireError: the message does not have the record's shape.
    """
    return from_wire(record_type, _read(message))


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    key: str
    has_presence: bool
    write: Callable[[Any], Any]
    """From the wire dict's value to what the message's constructor takes."""
    read: Callable[[Any], Any] | None
    """From the message's value to the wire dict's; None: they are the same."""


def _build(message_type: type[M], data: Any) -> M:
    if not is_mapping(data):
        raise TypeError(f"expected an object, found {type(data).__name__}")
    fields = _by_key(message_type.DESCRIPTOR)
    values: dict[str, Any] = {}
    for key, value in data.items():
        field = fields.get(key)
        if field is None:
            raise ValueError(f"it has no field {key!r}")
        if value is not None:
            values[field.name] = field.write(value)
    return message_type(**values)


def _read(message: Message) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for field in _by_key(message.DESCRIPTOR).values():
        if field.has_presence and not message.HasField(field.name):
            continue
        value = getattr(message, field.name)
        data[field.key] = value if field.read is None else field.read(value)
    return data


@cache
def _by_key(descriptor: Descriptor) -> Mapping[str, _Field]:
    return {field.json_name: _field(field) for field in descriptor.fields}


def _field(field: FieldDescriptor) -> _Field:
    write, read = _single(field)
    if field.message_type is not None and _is_map(field):
        write, read = _single(field.message_type.fields_by_name["value"])
        write, read = partial(_map_values, write), partial(_map_values, read or _same)
    elif field.is_repeated:
        write, read = partial(_items, write), partial(_items, read) if read is not None else list
    return _Field(field.name, field.json_name, field.has_presence, write, read)


def _single(field: FieldDescriptor) -> tuple[Callable[[Any], Any], Callable[[Any], Any] | None]:
    if field.message_type is not None and not _is_map(field):
        message_type = GetMessageClass(field.message_type)
        if field.message_type.full_name.startswith(_FREE):
            return partial(_free, message_type), json_format.MessageToDict
        return partial(_build, message_type), _read
    if field.cpp_type in _FLOATS:
        return _float, None
    return (_whole if field.cpp_type in _WHOLE else _same), None


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def _free(message_type: type[Message], value: Any) -> Message:
    return json_format.ParseDict(value, message_type())


def _float(value: Any) -> float:
    """Numbers that are none are texts on the wire."""
    return {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}[value] if type(value) is str else value


def _whole(value: Any) -> int:
    """Protobuf's own JSON has 64-bit numbers as texts."""
    return int(value) if type(value) is str else value


def _same(value: Any) -> Any:
    return value


def _items(convert: Callable[[Any], Any], values: Sequence[Any]) -> list[Any]:
    if isinstance(values, (str, Mapping)):
        raise TypeError(f"expected a list, found {type(values).__name__}")
    return [convert(value) for value in values]


def _map_values(convert: Callable[[Any], Any], values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: convert(value) for key, value in values.items()}
