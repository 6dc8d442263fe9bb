"""Colour and tables for people; plain text where nobody watches."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_CODES: Mapping[str, str] = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "magenta": "35",
    "cyan": "36",
}
_ESCAPE = re.compile(r"\x1b\[[0-9;]*m")
_ESCAPE_OR_TEXT = re.compile(r"\x1b\[[0-9;]*m|[^\x1b]+")
_STATE_COLORS: Mapping[str, str] = {
    "SUCCEEDED": "green",
    "RUNNING": "green",
    "ACTIVE": "green",
    "READY": "green",
    "FAILED": "red",
    "LOST": "red",
    "DEAD": "red",
    "EXITED": "red",
    "CONDEMNED": "red",
    "REJECTED": "red",
    "CANCELLED": "magenta",
    "RECOVERING": "yellow",
    "FAILING": "yellow",
    "CANCELLING": "yellow",
    "UNREACHABLE": "yellow",
    "PAUSING": "yellow",
    "PAUSED": "blue",
    "RESTARTING": "yellow",
    "CORDONED": "yellow",
    "DRAINING": "yellow",
}


@dataclass(frozen=True, slots=True)
class Style:
    """Paints text when ``enabled``, else returns it as it is."""

    enabled: bool

    def paint(self, text: str, color: str) -> str:
        """``text`` in one of the named colours."""
        return f"\x1b[{_CODES[color]}m{text}\x1b[0m" if self.enabled and text else text

    def state(self, text: str) -> str:
        """A phase or state in the colour that its meaning has everywhere."""
        color = _STATE_COLORS.get(text.upper())
        return self.paint(text, color) if color else text


PLAIN = Style(enabled=False)


def visible_length(text: str) -> int:
    """Characters that a terminal shows of ``text``."""
    return len(_ESCAPE.sub("", text))


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, style: Style = PLAIN, right: str = "") -> list[str]:
    """Aligned lines: a header and one line per row, two spaces between columns.

    Args:
        headers: column names.
        rows: cells, one sequence per row; cells may be painted.
        style: paints the header.
        right: names of the columns that hold numbers, separated by commas: those are aligned to the right.
    """
    numeric = {name for name in right.split(",") if name}
    widths = [max([len(name), *(visible_length(row[i]) for row in rows)]) for i, name in enumerate(headers)]

    def line(cells: Sequence[str]) -> str:
        padded: list[str] = []
        for name, width, cell in zip(headers, widths, cells, strict=True):
            blank = " " * (width - visible_length(cell))
            padded.append(blank + cell if name in numeric else cell + blank)
        return "  ".join(padded).rstrip()

    head = line(headers)
    return [style.paint(head, "bold"), *(line(row) for row in rows)]


def shorten(text: str, width: int) -> str:
    """``text`` cut to ``width`` characters, with an ellipsis when something is missing."""
    return text if len(text) <= width else text[: max(width - 1, 0)] + "…"


def clip(text: str, width: int) -> str:
    """A painted line cut to ``width`` visible characters; whatever colour is open at the cut is closed."""
    if visible_length(text) <= width:
        return text
    kept: list[str] = []
    left = max(width, 0)
    for part in _ESCAPE_OR_TEXT.findall(text):
        if part.startswith("\x1b["):
            kept.append(part)
        elif left:
            kept.append(part[:left])
            left -= len(part[:left])
    return "".join(kept)
