"""What is called where nobody wants to be told."""

from __future__ import annotations


def nothing() -> None:
    """There is nothing to do."""


def unseen(number: int) -> None:
    """Nobody looks at the number."""
