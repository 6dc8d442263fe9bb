"""What is wrong with an expression, and where."""

from __future__ import annotations

from trainctl.core.errors import UsageError

_AROUND = 60
"""So many characters of a long expression are shown on each side of the place."""


class ExpressionError(UsageError):
    """An expression on the command line cannot be read; names the position of the first thing that is wrong."""

    def __init__(self, text: str, position: int, message: str, *, hint: str = "") -> None:
        """Positions count from 0; people see them from 1, with a mark below the expression, or below a part of it."""
        first, end = max(position - _AROUND, 0), position + _AROUND
        before, behind = "..." if first else "", "..." if end < len(text) else ""
        shown = "".join(c if c.isprintable() else " " for c in text[first:end])
        mark = " " * (len(before) + position - first)
        super().__init__(
            f"position {position + 1}: {message}\n  {before}{shown}{behind}\n  {mark}^",
            hint=hint or "for example .status.phase, .jobs[*].uid or .jobs[?(@.status.step>10)].uid",
        )
