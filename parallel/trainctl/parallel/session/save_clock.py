"""When a job that saves by time, to its storage or to memory, does so next: each rank measures, the vote decides."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from trainctl.core.records.worker import WorkerDesired
from trainctl.parallel.plan.vote import VoteFlag


class SaveClock:
    """The time since the newest save was begun; lives as long as the worker, so no failure begins it anew.

    Ranks measure by themselves and may have been told different intervals, or none yet: what they come to travels with
    the vote (``Agreement.save_due``). The first one whose time is over is followed, so that a newcomer, whatever its
    rank, delays nothing.

    Args:
        now_s: a clock that never goes back.
        by_time: what a rank says that was told an interval.
        over: what it says as well when that is over.
    """

    def __init__(
        self,
        now_s: Callable[[], float] = time.monotonic,
        *,
        by_time: VoteFlag = VoteFlag.SAVE_BY_TIME,
        over: VoteFlag = VoteFlag.SAVE_NOW,
    ) -> None:
        self._now_s = now_s
        self._by_time, self._over = by_time, over
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
        return self._by_time | (self._over if over else VoteFlag.NONE)

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
            self.hurry()

    def hurry(self) -> None:
        """One is due at once, whatever the interval."""
        self._since_s = -math.inf


def _snapshot_clock() -> SaveClock:
    return SaveClock(by_time=VoteFlag.SNAPSHOT_BY_TIME, over=VoteFlag.SNAPSHOT_NOW)


@dataclass(frozen=True, slots=True)
class SaveClocks:
    """A worker's clocks.

    Attributes:
        checkpoints: of saves to the job's storage.
        snapshots: of those to the memory of the nodes.
    """

    checkpoints: SaveClock = field(default_factory=SaveClock)
    snapshots: SaveClock = field(default_factory=_snapshot_clock)

    def flags(self, told: WorkerDesired) -> VoteFlag:
        """What this rank says in a vote, by the intervals that it was told."""
        return self.checkpoints.flags(told.checkpoint_interval_s) | self.snapshots.flags(told.snapshot_interval_s)

    def enter(self, step: int, saved_step: int) -> None:
        """A generation begins; see ``SaveClock.enter``.

        A snapshot is due at once: the memory of its nodes has none of the state, or lost a copy with a node.
        """
        self.checkpoints.enter(step, saved_step)
        if step > 0:
            self.snapshots.hurry()
