"""Lines that show how far a long piece of work is."""

from __future__ import annotations

import time

from trainctl.core.units import format_bytes, format_duration

_LINE_EVERY_S = 1.0


def say(text: str) -> None:
    """One line on the worker's output, which its agent keeps as the log."""
    print(text, flush=True)


class Progress:
    """Silent during the first second, then about one line a second."""

    def __init__(self, what: str, *, total_bytes: int) -> None:
        self._what = what
        self._total_bytes = total_bytes
        self._done_bytes = 0
        self._started_s = self._said_s = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started_s

    def advance(self, size_bytes: int) -> None:
        """Counts ``size_bytes`` more as done."""
        self._done_bytes += size_bytes
        if time.monotonic() - self._said_s >= _LINE_EVERY_S:
            self._said_s = time.monotonic()
            of_total = f" of {format_bytes(self._total_bytes)}" if self._total_bytes else ""
            say(f"{self._what}: {format_bytes(self._done_bytes)}{of_total} after {format_duration(self.elapsed_s)}")
