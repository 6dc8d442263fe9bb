"""Seconds by stage, taken where they pass: code says which stage it is in, whoever wants to know measures the thread.

Each moment belongs to one stage only: what is timed inside of something else is not counted there again. So the stages
add up to what the whole took, also where one calls back into another, as a file that is written from checked blocks.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Measured:
    """What is measured on one thread: the stages that are open, the innermost last."""

    seconds: dict[str, float] = field(default_factory=dict[str, float])
    open: list[str] = field(default_factory=list[str])
    since_s: float = 0.0

    def turn(self) -> None:
        """The time until now belongs to the innermost stage."""
        now_s = time.perf_counter()
        if self.open:
            self.seconds[self.open[-1]] = self.seconds.get(self.open[-1], 0.0) + now_s - self.since_s
        self.since_s = now_s


class _Here(threading.local):
    measured: _Measured | None = None


_HERE = _Here()


@contextmanager
def timed(stage: str) -> Generator[None, None, None]:
    """The block is in this stage, if anybody measures this thread."""
    measured = _HERE.measured
    if measured is None:
        yield
        return
    measured.turn()
    measured.open.append(stage)
    try:
        yield
    finally:
        measured.turn()
        measured.open.pop()


class Stopwatch:
    """Adds up what its threads take; several may measure at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds: dict[str, float] = {}

    @property
    def seconds(self) -> Mapping[str, float]:
        """By stage, of what was measured to its end."""
        with self._lock:
            return dict(self._seconds)

    def add(self, stage: str, seconds: float) -> None:
        """Adds what was measured in another way."""
        with self._lock:
            self._seconds[stage] = self._seconds.get(stage, 0.0) + seconds

    @contextmanager
    def measuring(self) -> Generator[None, None, None]:
        """Measures this thread until the end of the block; whoever measured it before does not meanwhile."""
        before, _HERE.measured = _HERE.measured, _Measured()
        own = _HERE.measured
        try:
            yield
        finally:
            _HERE.measured = before
            for stage, seconds in own.seconds.items():
                self.add(stage, seconds)
