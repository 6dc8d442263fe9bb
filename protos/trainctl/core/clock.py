"""The clock port: decisions take a time as an argument, only shells hold a clock."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """Where a shell reads the time from; ``ManualClock`` for tests, ``core.system.clock.SystemClock`` outside."""

    def monotonic_s(self) -> float:
        """Seconds that never go back; only differences mean anything."""
        ...

    def wall_s(self) -> float:
        """Seconds since the Unix epoch; data for people, never for a decision."""
        ...


class ManualClock:
    """A clock that moves only when told to, for simulations and tests."""

    def __init__(self, start_s: float = 0.0) -> None:
        self._now_s = start_s

    def monotonic_s(self) -> float:
        """Seconds since construction, plus ``start_s``."""
        return self._now_s

    def wall_s(self) -> float:
        """The same as ``monotonic_s``: virtual time has no calendar."""
        return self._now_s

    def advance(self, by_s: float) -> None:
        """Moves the clock forward by ``by_s`` seconds (not negative)."""
        if by_s < 0:
            raise ValueError(f"a clock cannot go back: by_s={by_s}")
        self._now_s += by_s
