"""What rules find, and the checks that several of them share."""

from __future__ import annotations

from collections.abc import Iterator

from trainctl.controller.domain.spec.nodes import shortened
from trainctl.core.units import parse_duration_s

Finding = tuple[str, str]
"""Path and message."""


def one_of(path: str, value: str, *allowed: str) -> Iterator[Finding]:
    """The value is one of few words."""
    if value not in allowed:
        yield path, f'expected {" or ".join(allowed)}, found "{shortened(value)}"'


def duration(path: str, text: str) -> Iterator[Finding]:
    """The text is a duration."""
    try:
        parse_duration_s(text)
    except ValueError as error:
        yield path, str(error)
