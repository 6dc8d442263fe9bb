"""How far a command is that takes longer than a second: on stderr, one line drawn again, or one every few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from trainctl.cli.terminal.console import Console
from trainctl.cli.terminal.style import shorten
from trainctl.cli.terminal.times import rough
from trainctl.core.units import format_bytes

_SILENT_S = 1.0
_DRAWN_EVERY_S, _SAID_EVERY_S = 0.2, 5.0
_CLEAR_LINE = "\r\x1b[2K"


class Progress:
    """Silent during the first second; on a terminal its line is gone at the end of the block.

    Args:
        console: where it is shown; not at all with ``-q``.
        done: what happens to the bytes: ``verified``.
        now_s: monotonic seconds.
    """

    def __init__(self, console: Console, done: str, *, now_s: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._done = done
        self._now_s = now_s
        self._draws = console.draws_again(console.err) and not console.quiet
        self._began_s = now_s()
        self._next_s = self._began_s + _SILENT_S
        self._drawn = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._drawn:
            self._console.err.write(_CLEAR_LINE)
            self._console.err.flush()

    def at(self, done_bytes: int, total_bytes: int) -> None:
        """So many bytes of so many; costs nothing where it is not time to show it."""
        now_s = self._now_s()
        if now_s < self._next_s:
            return
        text = self._text(done_bytes, total_bytes, now_s - self._began_s)
        if self._draws:
            self._console.err.write(f"{_CLEAR_LINE}{shorten(text, self._console.width() - 1)}")
            self._console.err.flush()
            self._drawn = True
        else:
            self._console.say(text)
        self._next_s = now_s + (_DRAWN_EVERY_S if self._draws else _SAID_EVERY_S)

    def _text(self, done_bytes: int, total_bytes: int, took_s: float) -> str:
        if not total_bytes:
            return f"{format_bytes(done_bytes)} {self._done}"
        left_s = took_s * (total_bytes - done_bytes) / done_bytes if done_bytes else 0.0
        left = f", {rough(max(left_s, 1.0))} left" if done_bytes else ""
        share = min(100, 100 * done_bytes // total_bytes)
        return f"{share} % of {format_bytes(total_bytes)} {self._done}{left}"
