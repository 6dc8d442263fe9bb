"""JSON that somebody else wrote: what it is, is seen before it is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeGuard


def is_json_object(value: object) -> TypeGuard[Mapping[str, object]]:
    """Whether a value that came out of JSON is an object, which has texts for keys."""
    return isinstance(value, Mapping)
