"""When a job that saves by time saves next: each rank measures, and the vote makes one decision of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from trainctl.parallel.plan.vote import VoteFlag


class SaveClock:
    """The time since the newest save was begun; lives as long as the worker, so no failure begins it anew.

    Ranks measure by themselves and may have been told different intervals, or none yet: what they come to travels with
    the vote (``Agreement.save_due``). The first one whose time is over is followed, so that a newcomer, whatever its
    rank, delays nothing.

    Args:
        now_s: a clock that never goes back.
    """

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._since_s = now_s()
        self._step = -1

    def flags(self, interval_s: float) -> VoteFlag:
        """What this rank says in a vote.

        Args:
            interval_s: that it was told; 0: none.
        """
        if interval_s <= 0.0:
            return VoteFlag.NONE
        over = self._now_s() - self._since_s >= interval_s
        return VoteFlag.SAVE_BY_TIME | (VoteFlag.SAVE_NOW if over else VoteFlag.NONE)

    def begun(self, step: int) -> None:
        """The state after ``step`` is being saved."""
        self._since_s, self._step = self._now_s(), step

    def enter(self, step: int, saved_step: int) -> None:
        """A generation begins.

        Args:
            step: whose state everybody holds.
            saved_step: newest step with a committed checkpoint; -1: none.
        """
        if step <= saved_step:  # nothing is unsaved
            self.begun(saved_step)
        elif self._step > saved_step:  # what was begun came to nothing: it is made up for at once
            self._since_s = -math.inf
