"""What every ``Clock`` has to do; a test class inherits this and says how its time passes."""

from __future__ import annotations

import pytest

from trainctl.core.clock import Clock


class ClockContract:
    """Inherit, give the fixture, and override ``let_pass``."""

    @pytest.fixture
    def clock(self) -> Clock:
        raise NotImplementedError("the inheriting class provides a clock")

    def let_pass(self, clock: Clock, seconds: float) -> None:
        """Returns when at least ``seconds`` have passed on ``clock``."""
        raise NotImplementedError

    def test_it_never_goes_back(self, clock: Clock) -> None:
        seen = [clock.monotonic_s() for _ in range(1000)]
        self.let_pass(clock, 0.001)
        seen += [clock.monotonic_s() for _ in range(1000)]
        assert seen == sorted(seen)
        assert seen[-1] > seen[0]

    def test_differences_are_seconds_on_both_axes(self, clock: Clock) -> None:
        monotonic_s, wall_s = clock.monotonic_s(), clock.wall_s()
        self.let_pass(clock, 0.05)
        passed_s = clock.monotonic_s() - monotonic_s
        assert passed_s >= 0.05 - 1e-6
        assert clock.wall_s() - wall_s == pytest.approx(passed_s, abs=0.5)
