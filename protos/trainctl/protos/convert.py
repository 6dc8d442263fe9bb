"""Records to messages and back: through the one JSON form that both sides share (``core.codec``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from google.protobuf import json_format
from google.protobuf.message import Message

from trainctl.core.codec import WireError, from_wire, to_wire

M = TypeVar("M", bound=Message)
R = TypeVar("R")


def record_to_message(record: Any, message_type: type[M]) -> M:
    """Turns a record (or its wire dict) into the message that mirrors it.

    Raises:
        WireError: the record has a field that the message lacks.
    """
    try:
        return json_format.ParseDict(to_wire(record), message_type())
    except json_format.ParseError as error:
        raise WireError(f"{message_type.__name__}: {error}") from error


def message_to_dict(message: Message) -> Mapping[str, Any]:
    """The wire dict of a message, zeros included, so that a zero is never mistaken for a default."""
    data: dict[str, Any] = json_format.MessageToDict(message, always_print_fields_with_no_presence=True)
    return data


def message_to_record(message: Message, record_type: type[R]) -> R:
    """Turns a message into the record it mirrors.

    Raises:
        WireError: the message does not have the record's shape.
    """
    return from_wire(record_type, message_to_dict(message))
