"""JSON values with something else in one place, for tests of what strangers send."""

from __future__ import annotations

from typing import Any


def changed(value: Any, path: tuple[int, ...], new: Any) -> Any:
    """A copy of a JSON value with something else where ``path`` leads."""
    if isinstance(value, dict) and value and path:
        name = sorted(value)[path[0] % len(value)]
        return {**value, name: changed(value[name], path[1:], new)}
    if isinstance(value, list) and value and path:
        index = path[0] % len(value)
        return [*value[:index], changed(value[index], path[1:], new), *value[index + 1 :]]
    return new
