"""The real clock."""

from __future__ import annotations

import time


class SystemClock:
    """Implements ``core.clock.Clock`` with the machine's clocks."""

    def monotonic_s(self) -> float:
        """CLOCK_MONOTONIC in seconds: on Linux comparable between the processes of one machine."""
        return time.monotonic()

    def wall_s(self) -> float:
        """Seconds since the Unix epoch."""
        return time.time()
