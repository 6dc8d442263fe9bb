"""Foreign text inside our messages: what a terminal only shows, and no more of it than somebody reads."""

from __future__ import annotations

_MOST = 60
_NAMED = 3


def printable(text: str) -> str:
    """The same text with everything spelled out that a terminal would obey or hide, such as escape codes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shortened(text: str) -> str:
    """At most 60 characters of a text, printable."""
    shown = printable(text[: _MOST + 1])
    return shown if len(text) <= _MOST else f"{shown[: _MOST - 3]}..."


def look_alikes(text: str) -> str:
    """For words of ours that are all ASCII: which letters of ``text`` are not and may only look so; else empty."""
    foreign = list(dict.fromkeys(c for c in text if not c.isascii()))[:_NAMED]
    named = ", ".join(f'"{printable(c)}" (U+{ord(c):04X})' for c in foreign)
    return f"; not plain letters: {named}" if foreign else ""
