"""Random messages of a type, as ``hypothesis`` strategies: any value in any field, and bytes that are no message."""

from __future__ import annotations

from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from hypothesis import strategies as st

_DEPTH = 3
_WORDS = ("", "a", "default", "other", "node-0", "../..", "x" * 300, "\x00", "é\u202e", "a/b", "*", "tctl_", "latest")
_TEXTS = st.one_of(st.sampled_from(_WORDS), st.text(max_size=20))
_WHOLE = st.sampled_from((0, 1, -1, 2, 7, 1000, 2**31 - 1, -(2**31)))
_LONG = st.one_of(_WHOLE, st.sampled_from((2**63 - 1, -(2**63))))
_NUMBERS = st.sampled_from((0.0, 1.0, -1.0, 0.5, 1e-300, 1e300, float("nan"), float("inf"), -float("inf")))
_BY_TYPE: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.TYPE_STRING: _TEXTS,
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=40),
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_DOUBLE: _NUMBERS,
    FieldDescriptor.TYPE_FLOAT: st.sampled_from((0.0, 1.0, -1.0, float("nan"))),
    FieldDescriptor.TYPE_INT32: _WHOLE,
    FieldDescriptor.TYPE_INT64: _LONG,
    FieldDescriptor.TYPE_UINT32: st.sampled_from((0, 1, 2**32 - 1)),
    FieldDescriptor.TYPE_UINT64: st.sampled_from((0, 1, 2**64 - 1)),
    FieldDescriptor.TYPE_ENUM: st.just(0),
}


@st.composite
def any_message(draw: st.DrawFn, descriptor: Descriptor, depth: int = _DEPTH) -> Any:
    """A message with random values in some of its fields."""
    message = message_factory.GetMessageClass(descriptor)()
    for field in descriptor.fields:
        if not draw(st.booleans()) or (field.message_type is not None and depth == 0):
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            _fill_map(draw, message, field, depth)
        elif field.is_repeated:
            for _ in range(draw(st.integers(1, 3))):
                _append(draw, message, field, depth)
        elif field.message_type is not None:
            getattr(message, field.name).CopyFrom(draw(any_message(field.message_type, depth - 1)))
        else:
            setattr(message, field.name, draw(_BY_TYPE[field.type]))
    return message


def _append(draw: st.DrawFn, message: Any, field: FieldDescriptor, depth: int) -> None:
    if field.message_type is not None:
        getattr(message, field.name).add().CopyFrom(draw(any_message(field.message_type, depth - 1)))
    else:
        getattr(message, field.name).append(draw(_BY_TYPE[field.type]))


def _fill_map(draw: st.DrawFn, message: Any, field: FieldDescriptor, depth: int) -> None:
    assert field.message_type is not None
    key, value = (field.message_type.fields_by_name[name] for name in ("key", "value"))
    entries = getattr(message, field.name)
    name = draw(_BY_TYPE[key.type])
    if value.message_type is not None:
        entries[name].CopyFrom(draw(any_message(value.message_type, depth - 1)))
    else:
        entries[name] = draw(_BY_TYPE[value.type])


def any_request(descriptor: Descriptor) -> st.SearchStrategy[bytes]:
    """What a stranger may send to a method: a message, a piece of one, or anything."""
    whole = any_message(descriptor).map(lambda message: message.SerializeToString())
    torn = st.tuples(whole, st.integers(0, 100)).map(lambda pair: pair[0][: pair[1]])
    return st.one_of(whole, whole, torn, st.binary(max_size=60))
