"""Deadlines, and looking again until something is so.

Without it a wait could end before its time, never, or without the last look that would have found what it waited for.
"""

from __future__ import annotations

import pytest

from trainctl.core.system.deadline import Deadline, comes_true


class Time:
    """A clock that goes on when somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.naps: list[float] = []

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, pause_s: float) -> None:
        self.naps.append(pause_s)
        self.now_s += pause_s


def test_what_is_left_of_a_deadline_goes_down_to_nothing() -> None:
    time = Time()
    deadline = Deadline(2.0, time)
    assert (deadline.left_s, deadline.over) == (2.0, False)
    time.sleep(1.5)
    assert (deadline.left_s, deadline.over) == (0.5, False)
    time.sleep(0.5)
    assert (deadline.left_s, deadline.over) == (0.0, True)
    time.sleep(1.0)
    assert (deadline.left_s, deadline.over) == (0.0, True)


def test_a_deadline_of_no_time_is_over_at_once() -> None:
    assert Deadline(0.0, Time()).over


def test_what_is_so_at_once_is_not_waited_for() -> None:
    time = Time()
    assert comes_true(lambda: True, Deadline(0.0, time), 1.0, sleep=time.sleep)
    assert not time.naps


def test_what_comes_true_is_seen_at_the_next_look() -> None:
    time = Time()
    assert comes_true(lambda: time.now_s >= 102.5, Deadline(10.0, time), 1.0, sleep=time.sleep)
    assert time.naps == [1.0, 1.0, 1.0]


def test_what_comes_true_at_the_very_end_counts() -> None:
    time = Time()
    assert comes_true(lambda: time.now_s >= 102.5, Deadline(2.5, time), 1.0, sleep=time.sleep)
    assert time.naps == [1.0, 1.0, 0.5]


def test_what_does_not_come_true_is_given_up_in_time() -> None:
    time = Time()
    assert not comes_true(lambda: False, Deadline(2.5, time), 1.0, sleep=time.sleep)
    assert time.now_s == 102.5


def test_a_look_that_fails_ends_the_wait() -> None:
    def look() -> bool:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        comes_true(look, Deadline(1.0, Time()), 0.1)
