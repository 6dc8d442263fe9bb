"""The clocks that there are keep the contract, and what each adds to it.

Without it a clock that is set could make time-outs come at once or never.
"""

from __future__ import annotations

import time

import pytest

from contracts.clock_contract import ClockContract
from trainctl.core.clock import Clock, ManualClock
from trainctl.core.system.clock import SystemClock


class TestSystemClock(ClockContract):
    @pytest.fixture
    def clock(self) -> Clock:
        return SystemClock()

    def let_pass(self, clock: Clock, seconds: float) -> None:
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            pass

    def test_it_shows_the_machines_time(self, clock: Clock) -> None:
        before_s = time.monotonic(), time.time()
        shown_s = clock.monotonic_s(), clock.wall_s()
        after_s = time.monotonic(), time.time()
        for before, shown, after in zip(before_s, shown_s, after_s, strict=True):
            assert before <= shown <= after


class TestManualClock(ClockContract):
    @pytest.fixture
    def clock(self) -> Clock:
        return ManualClock(7.5)

    def let_pass(self, clock: Clock, seconds: float) -> None:
        assert isinstance(clock, ManualClock)
        clock.advance(seconds)

    def test_nothing_moves_it_but_its_owner(self, clock: Clock) -> None:
        until_s = time.monotonic() + 0.01
        while time.monotonic() < until_s:
            assert (clock.monotonic_s(), clock.wall_s()) == (7.5, 7.5)
