"""What is wrong with an expression, and where."""

from __future__ import annotations

from trainctl.core.errors import UsageError


class ExpressionError(UsageError):
    """An expression on the command line cannot be read; names the position of the first thing that is wrong."""

    code = "USAGE"

    def __init__(self, text: str, position: int, message: str, *, hint: str = "") -> None:
        """Positions count from 0; people see them from 1, with a mark below the expression."""
        shown = text.replace("\n", " ")
        super().__init__(
            f"position {position + 1}: {message}\n  {shown}\n  {' ' * position}^",
            hint=hint or "for example .status.phase, .jobs[*].uid or .jobs[?(@.status.step>10)].uid",
        )
