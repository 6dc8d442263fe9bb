"""Seconds by stage: each moment counts once, on the thread where it passes.

Without it the times that are shown of a save would not add up.
"""

from __future__ import annotations

import threading

import pytest

from trainctl.checkpoint import stopwatch
from trainctl.checkpoint.stopwatch import Stopwatch, timed


class Clock:
    """Moves when it is told to."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def perf_counter(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(stopwatch, "time", clock)
    return clock


def test_what_is_inside_of_a_stage_is_not_counted_there_again(clock: Clock) -> None:
    watch = Stopwatch()
    with watch.measuring():
        clock.now_s += 64  # in no stage
        with timed("write"):
            clock.now_s += 1
            with timed("checksum"):
                clock.now_s += 2
                with timed("write"):
                    clock.now_s += 4
            clock.now_s += 8
            with timed("sync"):
                clock.now_s += 16
        assert watch.seconds == {}, "measured to its end only"
    assert watch.seconds == {"write": 13, "checksum": 2, "sync": 16}
    watch.add("fence", 3)
    with watch.measuring(), timed("sync"):
        clock.now_s += 1
    assert watch.seconds == {"write": 13, "checksum": 2, "sync": 17, "fence": 3}


def test_a_stage_that_fails_counts_and_nobody_measures_after_the_end(clock: Clock) -> None:
    watch = Stopwatch()

    def refused() -> None:
        with watch.measuring(), timed("write"):
            clock.now_s += 5
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        refused()
    with timed("write"):
        clock.now_s += 7
    assert watch.seconds == {"write": 5}


def test_threads_do_not_see_each_others_stages(clock: Clock) -> None:
    watch, inside, go_on = Stopwatch(), threading.Event(), threading.Event()

    def read() -> None:
        with watch.measuring(), timed("read"):
            inside.set()
            assert go_on.wait(10)

    thread = threading.Thread(target=read)
    thread.start()
    assert inside.wait(10)
    with watch.measuring(), timed("verify"):
        clock.now_s += 3
    go_on.set()
    thread.join(10)
    assert watch.seconds == {"verify": 3, "read": 3}
