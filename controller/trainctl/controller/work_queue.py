"""A queue of keys: each waits at most once, is never worked on twice at a time, and comes back later if it failed."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from random import Random

from trainctl.core.pauses import doubled_s, drawn_s

BASE_S = 0.05
CAP_S = 60.0


class WorkQueue:
    """De-duplicating, with timers and per-key exponential back-off with full jitter (control-plane reference 2.5).

    Args:
        chance: where the jitter comes from.
    """

    def __init__(self, chance: Random) -> None:
        self._chance = chance
        self._waiting: deque[str] = deque()
        self._queued: set[str] = set()
        self._busy: set[str] = set()
        self._again: set[str] = set()
        self._failures: Counter[str] = Counter()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, key: str) -> None:
        """Asks for a pass over ``key``; if one is running, another follows it."""
        if key in self._busy:
            self._again.add(key)
        elif key not in self._queued:
            self._queued.add(key)
            self._waiting.append(key)
            self._wake.set()

    def add_within(self, key: str, delay_s: float) -> None:
        """Asks for a pass in ``delay_s`` seconds at the latest; a timer that is due before is enough."""
        known = self._timers.get(key)
        if known is None or known.when() > asyncio.get_running_loop().time() + delay_s:
            self.add_after(key, delay_s)

    def add_after(self, key: str, delay_s: float) -> None:
        """Asks for a pass in ``delay_s`` seconds; replaces the timer that ``key`` had."""
        self._forget_timer(key)
        loop = asyncio.get_running_loop()
        self._timers[key] = loop.call_later(max(0.0, delay_s), self._timer_fired, key)

    def _forget_timer(self, key: str) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()

    async def work(self, handle: Callable[[str], Awaitable[None]], failed: Callable[[str, Exception], None]) -> None:
        """Handles keys until cancelled; run as many of these as passes may overlap.

        An exception of ``handle`` goes to ``failed`` and delays that key only.
        """
        while True:
            key = await self._take()
            try:
                await handle(key)
                self._failures.pop(key, None)
            except Exception as error:
                failed(key, error)
                self._failures[key] += 1
                self.add_after(key, self._pause_s(key))
            finally:
                self._busy.discard(key)
            if key in self._again:
                self._again.discard(key)
                if key not in self._failures:
                    self.add(key)

    def close(self) -> None:
        """Cancels all timers."""
        for key in list(self._timers):
            self._forget_timer(key)

    async def _take(self) -> str:
        while not self._waiting:
            self._wake.clear()
            await self._wake.wait()
        key = self._waiting.popleft()
        self._queued.discard(key)
        self._busy.add(key)
        return key

    def _timer_fired(self, key: str) -> None:
        self._timers.pop(key, None)
        self.add(key)

    def _pause_s(self, key: str) -> float:
        return drawn_s(doubled_s(BASE_S, self._failures[key], CAP_S), self._chance.random())
