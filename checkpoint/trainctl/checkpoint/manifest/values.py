"""Python values as JSON that reads back exactly: floats by their bits, big integers, tuples; nothing that runs code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainctl.core.errors import CheckpointError

_MARKS = ("$float", "$int", "$tuple")
_EXACT_INTEGERS = 2**53


def encode_value(value: Any, *, path: str = "objects") -> Any:
    """The value as plain JSON; a float becomes ``{"$float": "0x1.8p+1"}``.

    Raises:
        CheckpointError: it holds something that JSON cannot hold; names the path.
    """
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return value if abs(value) <= _EXACT_INTEGERS else {"$int": str(value)}
    if isinstance(value, float):
        return {"$float": value.hex()}
    if isinstance(value, tuple):
        return {"$tuple": [encode_value(item, path=f"{path}[{i}]") for i, item in enumerate(value)]}
    if isinstance(value, list):
        return [encode_value(item, path=f"{path}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, Mapping) and all(isinstance(k, str) and k not in _MARKS for k in value):
        return {key: encode_value(item, path=f"{path}.{key}") for key, item in value.items()}
    raise CheckpointError(
        f"{path}: expected None, bool, int, float, str, list, tuple or dict by str, found {type(value).__name__}",
        hint="keep tensors in the state and everything else as plain values",
    )


def decode_value(data: Any) -> Any:
    """What ``encode_value`` was given."""
    if isinstance(data, list):
        return [decode_value(item) for item in data]
    if not isinstance(data, Mapping):
        return data
    if data.keys() == {"$float"}:
        return float.fromhex(data["$float"])
    if data.keys() == {"$int"}:
        return int(data["$int"])
    if data.keys() == {"$tuple"}:
        return tuple(decode_value(item) for item in data["$tuple"])
    return {key: decode_value(item) for key, item in data.items()}
