"""Whether the store takes writes now: nobody can tell from a controller that answers out of its memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from trainctl.controller.store.port import StateStore, StoreCondition, StoreUnavailableError
from trainctl.core.errors import TrainctlError

MOST_S = 10.0
"""Nobody is kept waiting longer for an outcome."""
_TTL_S = 10.0
"""Of what is left behind if the store falls silent in between."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreLook:
    """How the store was found.

    Attributes:
        took_s: until it confirmed the write, or until that failed.
        error: why it failed; None if it did not.
        condition: what it says of itself; None if it says nothing.
    """

    took_s: float
    error: TrainctlError | None = None
    condition: StoreCondition | None = None


class StoreTrial:
    """Tries the store with a write that leaves neither a key nor a revision: a lease, given back at once.

    A store that is full or has no majority refuses a lease as it refuses any other write.

    Args:
        store: to try.
        monotonic_s: the clock.
    """

    def __init__(self, store: StateStore, monotonic_s: Callable[[], float]) -> None:
        self._store = store
        self._monotonic_s = monotonic_s
        self._one = asyncio.Lock()
        self._last: StoreLook | None = None
        self._last_began_s = 0.0

    async def look(self, within_s: float) -> StoreLook:
        """Tries it for at most ``within_s`` (``MOST_S``) seconds.

        There is one trial at a time: whoever asks meanwhile shares the outcome of the next one, so that however many
        ask, the store is not kept busy, and nobody is told what was true before he asked.
        """
        began_s = self._monotonic_s()
        end_s = began_s + min(within_s, MOST_S)
        try:
            async with asyncio.timeout(end_s - began_s):
                await self._one.acquire()
        except TimeoutError:
            return StoreLook(took_s=self._monotonic_s() - began_s, error=_silence(end_s - began_s))
        try:
            if self._last is not None and self._last_began_s >= began_s:
                return self._last
            now_s = self._monotonic_s()
            found, outcome = await self._try(max(0.0, end_s - now_s))
            if outcome:
                self._last, self._last_began_s = found, now_s
            return found
        finally:
            self._one.release()

    async def _try(self, within_s: float) -> tuple[StoreLook, bool]:
        """What is found, and whether that is the store's word or only this caller's impatience."""
        began_s = self._monotonic_s()
        writing = asyncio.create_task(self._write())
        asking = asyncio.create_task(self._ask())
        try:
            await asyncio.wait({writing, asking}, timeout=within_s)
            condition = asking.result() if asking.done() else None
            if writing.done():
                took_s, error = writing.result()
                return StoreLook(took_s=took_s, error=error, condition=condition), True
            took_s = self._monotonic_s() - began_s
            return StoreLook(took_s=took_s, error=_silence(within_s), condition=condition), False
        finally:
            writing.cancel()
            asking.cancel()
            await asyncio.gather(writing, asking, return_exceptions=True)

    async def _write(self) -> tuple[float, TrainctlError | None]:
        began_s = self._monotonic_s()
        try:
            lease = await self._store.lease_grant(_TTL_S)
            took_s = self._monotonic_s() - began_s
            await self._store.lease_revoke(lease)
        except TrainctlError as error:
            return self._monotonic_s() - began_s, error
        return took_s, None

    async def _ask(self) -> StoreCondition | None:
        try:
            return await self._store.condition()
        except TrainctlError:
            return None  # the write that is tried beside it says what is wrong


def _silence(within_s: float) -> StoreUnavailableError:
    return StoreUnavailableError(f"the state store did not confirm a write within {within_s:.1f} s")
