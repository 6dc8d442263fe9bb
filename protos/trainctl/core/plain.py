"""Plain data that nobody has looked at yet, as JSON, YAML or another process hands it over: what is it?

``isinstance`` answers the same, but leaves a type checker without a type for what is inside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard


def is_mapping(value: object) -> TypeGuard[Mapping[Any, object]]:
    """Whether it has keys and values; the keys are texts in JSON, and may be anything in YAML."""
    return type(value) is dict or isinstance(value, Mapping)  # nearly all are dicts, and this is asked often


def is_list(value: object) -> TypeGuard[list[object]]:
    """Whether it is a list as JSON and YAML are read."""
    return isinstance(value, list)


def is_sequence(value: object) -> TypeGuard[Sequence[object]]:
    """Whether it is a list of any kind; a text is none."""
    return type(value) is list or (isinstance(value, Sequence) and not isinstance(value, str))
