"""What rules find, and the checks that several of them share."""

from __future__ import annotations

from collections.abc import Iterator

from trainctl.core.texts import look_alikes, shortened
from trainctl.core.units import parse_duration_s

Finding = tuple[str, str]
"""Path and message."""


def one_of(path: str, value: str, *allowed: str) -> Iterator[Finding]:
    """The value is one of few words."""
    if value not in allowed:
        yield path, f'expected {" or ".join(allowed)}, found "{shortened(value)}"{look_alikes(value)}'


def duration(path: str, text: str, *, positive: bool = False) -> Iterator[Finding]:
    """The text is a duration, of more than nothing if it has to be ``positive``."""
    try:
        seconds = parse_duration_s(text)
    except ValueError as error:
        yield path, str(error)
        return
    if positive and seconds <= 0:
        yield path, f'expected more than no time at all, found "{shortened(text)}"'
