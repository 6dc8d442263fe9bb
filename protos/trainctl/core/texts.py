"""Foreign text inside our messages: what a terminal only shows, and no more of it than somebody reads."""

from __future__ import annotations

import re
from collections.abc import Iterable

_MOST = 60
_NAMED = 3
_MOST_OF_LINE = 1000
_OBEYED = re.compile(r"\x1b\[[0-9;]*m|[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_COLOUR = "\x1b["
_LONG_WORD = re.compile(r"\S{200,}")


def printable(text: str) -> str:
    """The same text with everything spelled out that a terminal would obey or hide, such as escape codes."""
    return "".join(c if c.isprintable() else _spelled(c) for c in text)


def harmless(text: str) -> str:
    """What a terminal may be given of text that may be somebody else's: colours, and no other codes that it obeys."""
    return _OBEYED.sub(lambda code: code[0] if code[0].startswith(_COLOUR) else _spelled(code[0]), text)


def shortened(text: str) -> str:
    """At most 60 characters of a text, printable."""
    shown = printable(text[: _MOST + 1])
    return shown if len(text) <= _MOST else f"{shown[: _MOST - 3]}..."


def bounded(line: str) -> str:
    """A line of a message as somebody can read it: printable, no endless words, and not endless itself."""
    words = _LONG_WORD.sub(lambda word: f"{word[0][:_MOST]}...{word[0][-_MOST:]}", printable(line))
    return words if len(words) <= _MOST_OF_LINE else f"{words[: _MOST_OF_LINE - 3]}..."


def quoted(text: str) -> str:
    """Text of somebody else's inside a sentence of ours: ``'text'``, shortened."""
    return f"'{shortened(text)}'"


def listed(names: Iterable[str]) -> str:
    """Names inside a sentence: ``a, b``, sorted; ``none`` where there is none."""
    return ", ".join(sorted(names)) or "none"


def _spelled(character: str) -> str:
    """Bytes that were no UTF-8 are characters from U+DC80 on, as Python reads names and arguments."""
    code = ord(character)
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else character.encode("unicode_escape").decode()


def look_alikes(text: str) -> str:
    """For words of ours that are all ASCII: which letters of ``text`` are not and may only look so; else empty."""
    foreign = list(dict.fromkeys(c for c in text if not c.isascii()))[:_NAMED]
    named = ", ".join(f'"{printable(c)}" (U+{ord(c):04X})' for c in foreign)
    return f"; not plain letters: {named}" if foreign else ""
