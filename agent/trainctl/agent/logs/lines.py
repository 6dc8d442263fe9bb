"""Bytes to lines, with a bound on their length."""

from __future__ import annotations

MAX_LINE_BYTES = 16 * 1024
CUT_MARK = " [line cut]"


class LineSplitter:
    """Cuts a byte stream into text lines. Longer ones are cut, the rest of them is dropped.

    Of what a progress bar overwrites with carriage returns, only the last state is kept.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._skipping = False

    def feed(self, data: bytes) -> list[str]:
        """The lines that ``data`` completes."""
        *whole, self._rest = (self._rest + data).split(b"\n")
        lines: list[str] = []
        for line in whole:
            if not self._skipping:
                lines.append(_text(line))
            self._skipping = False
        if len(self._rest) > MAX_LINE_BYTES:
            if not self._skipping:
                lines.append(_text(self._rest))
            self._skipping = True
            self._rest = b""
        return lines

    def end(self) -> list[str]:
        """What was printed without a newline at the end."""
        rest, self._rest = self._rest, b""
        return [_text(rest)] if rest and not self._skipping else []


def _text(line: bytes) -> str:
    line = line.rstrip(b"\r").rpartition(b"\r")[2]
    text = line[:MAX_LINE_BYTES].decode(errors="replace")
    return text + CUT_MARK if len(line) > MAX_LINE_BYTES else text
