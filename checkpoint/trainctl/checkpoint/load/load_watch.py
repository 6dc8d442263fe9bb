"""What a load did so far: for whoever looks on while it goes on, and for the figures afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from trainctl.checkpoint.manifest.rereads import Rereads
from trainctl.checkpoint.monitor import COPY, FETCH, PLAN, READ, VERIFY, PartTimes, in_wall_time
from trainctl.checkpoint.stopwatch import Stopwatch

_BY_THREADS = (READ, VERIFY, COPY)
"""Stages in which several threads are at once."""
Progress = Callable[[int, int], None]
"""Told how many bytes of how many in all."""


def unwatched(done_bytes: int, total_bytes: int) -> None:
    """Nobody looks on."""


class LoadWatch:
    """Filled by ``loading.load``.

    Args:
        progress: told after each few megabytes, on the thread that loads.

    Attributes:
        reading: seconds of all threads that read, verify and copy.
        data_bytes: tensor bytes that were wanted.
        moved_bytes: bytes that the storage was asked for.
        rereads: what came with wrong bytes and was right when it was read again.
    """

    def __init__(self, progress: Progress = unwatched) -> None:
        self.reading = Stopwatch()
        self.rereads = Rereads()
        self.data_bytes = self.moved_bytes = 0
        self._planned = False
        self._progress = progress
        self._began_s = time.perf_counter()
        self._planned_s = self._over_s = self._began_s
        self._total_bytes = self._done_bytes = 0
        self._fetching_s = 0.0

    @contextmanager
    def fetching(self) -> Generator[None, None, None]:
        """Files come here from other nodes, before it is known what is to be read of them."""
        began_s = time.perf_counter()
        try:
            yield
        finally:
            self._fetching_s += time.perf_counter() - began_s

    def to_fetch(self, size_bytes: int) -> None:
        """So many bytes will come here."""
        self._total_bytes += size_bytes
        self._progress(self._done_bytes, self._total_bytes)

    def fetched(self, size_bytes: int) -> None:
        """So many bytes more came here."""
        self._done_bytes += size_bytes
        self._progress(self._done_bytes, self._total_bytes)

    def planned(self, *, data_bytes: int, total_bytes: int) -> None:
        """It is known what is to be read: now that begins. What is said again later changes nothing."""
        if self._planned:
            return
        self._planned = True
        self.data_bytes = data_bytes
        self._total_bytes += total_bytes
        self._planned_s = time.perf_counter()
        self._progress(self._done_bytes, self._total_bytes)

    def moved(self, size_bytes: int) -> None:
        """So many bytes more were read."""
        self.moved_bytes += size_bytes
        self._done_bytes += size_bytes
        self._over_s = time.perf_counter()
        self._progress(self._done_bytes, self._total_bytes)

    def part(self, rank: int) -> PartTimes:
        """How long its stages took: of threads that worked at once, as shares of the time that passed."""
        wall_s = max(0.0, self._over_s - self._planned_s)
        shares = in_wall_time(self.reading.seconds, wall_s)
        planning_s = max(0.0, self._planned_s - self._began_s - self._fetching_s)
        seconds = {PLAN: planning_s, **{stage: shares.get(stage, 0.0) for stage in _BY_THREADS}}
        if self._fetching_s:
            seconds[FETCH] = self._fetching_s
        rounded = {stage: round(value, 6) for stage, value in seconds.items()}
        return PartTimes(rank, self.data_bytes, rounded, self.moved_bytes, self.rereads.healed)
