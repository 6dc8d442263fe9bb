"""Sets of steps as a flat tuple (first, last, first, last, ...): ascending ranges that do not touch. Pure."""

from __future__ import annotations

from collections.abc import Iterator

Ranges = tuple[int, ...]


def pairs(ranges: Ranges) -> Iterator[tuple[int, int]]:
    """First and last step of each range."""
    return zip(ranges[::2], ranges[1::2], strict=True)


def count(ranges: Ranges) -> int:
    """How many steps."""
    return sum(last - first + 1 for first, last in pairs(ranges))


def contains(ranges: Ranges, step: int) -> bool:
    """Whether the step is one of them."""
    return any(first <= step <= last for first, last in pairs(ranges))


def appended(ranges: Ranges, first: int, last: int) -> Ranges:
    """With the steps ``first`` to ``last``, all of which lie behind the ranges; nothing is added if there are none."""
    return (*ranges, first, last) if first <= last else ranges


def without(ranges: Ranges, step: int) -> Ranges:
    """Without this step."""
    left: list[int] = []
    for first, last in pairs(ranges):
        if not first <= step <= last:
            left += (first, last)
            continue
        if first < step:
            left += (first, step - 1)
        if step < last:
            left += (step + 1, last)
    return tuple(left)


def up_to(ranges: Ranges, step: int) -> Ranges:
    """Only steps that are not greater than ``step``."""
    left: list[int] = []
    for first, last in pairs(ranges):
        if first <= step:
            left += (first, min(last, step))
    return tuple(left)
