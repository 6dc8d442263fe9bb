"""Values that nobody has looked at yet, as files, users and other processes hand them over: what are they?

``isinstance`` answers the same, but leaves a type checker without a type for what is inside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard


def is_mapping(value: object) -> TypeGuard[Mapping[Any, Any]]:
    """Whether it has keys and values; the keys are texts in JSON, and may be anything in YAML."""
    return type(value) is dict or isinstance(value, Mapping)  # nearly all are dicts, and this is asked often


def is_dict(value: object) -> TypeGuard[dict[Any, Any]]:
    """Whether it is a dict, of anything to anything."""
    return isinstance(value, dict)


def is_list(value: object) -> TypeGuard[list[Any]]:
    """Whether it is a list, of anything."""
    return isinstance(value, list)


def is_tuple(value: object) -> TypeGuard[tuple[Any, ...]]:
    """Whether it is a tuple, of anything."""
    return isinstance(value, tuple)


def is_sequence(value: object) -> TypeGuard[Sequence[Any]]:
    """Whether it is a list of any kind; a text is none."""
    return type(value) is list or (isinstance(value, Sequence) and not isinstance(value, str))
