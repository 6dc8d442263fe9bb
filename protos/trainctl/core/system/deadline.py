"""Waiting that ends: a moment by which something has to be over, and looking again and again until it is.

What only waits for a lock, an event or a thread hands ``left_s`` to it. ``comes_true`` is for what nobody can wait for:
another process's file, a store in another host, a library without an event.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class Deadline:
    """A moment, ``within_s`` seconds from now. What takes several waits hands it from one to the next.

    Args:
        within_s: 0 is over at once.
        now_s: a clock that never goes back.
    """

    def __init__(self, within_s: float, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._end_s = now_s() + within_s

    @property
    def left_s(self) -> float:
        """Seconds until then; 0 afterwards."""
        return max(0.0, self._end_s - self._now_s())

    @property
    def over(self) -> bool:
        """It has come."""
        return not self.left_s


def comes_true(
    look: Callable[[], bool], deadline: Deadline, every_s: float, *, sleep: Callable[[float], object] = time.sleep
) -> bool:
    """Whether ``look`` said so by then: asked at once, then every so many seconds, and last when the time is over.

    What ``look`` raises ends the wait.
    """
    while not look():
        if deadline.over:
            return False
        sleep(min(every_s, deadline.left_s))
    return True
