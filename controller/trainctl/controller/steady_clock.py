"""The one time axis that decisions are made on: Unix seconds that never go back."""

from __future__ import annotations

from trainctl.core.clock import Clock


class SteadyClock:
    """Unix time read once, then advanced by the monotonic clock: a stepped wall clock moves no deadline.

    ``not_before`` lifts the axis over times that an earlier controller life has already written down.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._origin_s = clock.wall_s() - clock.monotonic_s()

    def now_s(self) -> float:
        """Seconds since the Unix epoch."""
        return self._origin_s + self._clock.monotonic_s()

    def wall_s(self) -> float:
        """The same axis: so this is a ``Clock``, too."""
        return self.now_s()

    def monotonic_s(self) -> float:
        """The clock below, for intervals."""
        return self._clock.monotonic_s()

    def not_before(self, time_s: float) -> None:
        """From now on ``now_s`` is at least ``time_s``."""
        self._origin_s += max(0.0, time_s - self.now_s())
