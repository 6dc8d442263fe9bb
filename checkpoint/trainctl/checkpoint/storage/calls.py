"""Calls of a storage that is not on this machine: each with a limit, tried again while that may help."""

from __future__ import annotations

import copy
import errno
import logging
import queue
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar, cast

from trainctl.checkpoint.storage.failures import StorageSaysNoError, failure_of
from trainctl.checkpoint.storage.patience import Patience
from trainctl.core.clock import Clock
from trainctl.core.system.clock import SystemClock

_LOG = logging.getLogger("trainctl.checkpoint")
T = TypeVar("T")


class Calls:
    """Makes the calls.

    Args:
        patience: how long to wait.
        clock: what that is measured with.
        sleep: waits for so many seconds.
        chance: a number from 0 up to 1, another one each time.

    Attributes:
        endpoint: who is called, for messages; empty: nobody in particular.
    """

    endpoint = ""

    def __init__(
        self,
        patience: Patience | None = None,
        *,
        clock: Clock | None = None,
        sleep: Callable[[float], object] = time.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.patience = patience or Patience()
        self._clock = clock or SystemClock()
        self._sleep = sleep
        self._chance = chance

    def to(self, endpoint: str) -> Calls:
        """The same to one endpoint, which messages name then."""
        found = copy.copy(self)
        found.endpoint = endpoint
        return found

    def call(self, where: str, action: Callable[[bool], T], *, size_bytes: int = 0) -> T:
        """What the action returns.

        Args:
            where: what it asks for, and of whom, for messages.
            action: can be done again; told whether it was tried before, which may have had its effect unheard.
            size_bytes: how many bytes travel.

        Raises:
            FileNotFoundError, FileExistsError: as the action.
            StorageSaysNoError: it failed in a way that lasts, or for too long.
        """
        began_s, tries, said_s = self._clock.monotonic_s(), 0, 0.0
        while True:
            try:
                return self.once(where, partial(action, tries > 0), size_bytes=size_bytes)
            except StorageSaysNoError as failure:
                tries += 1
                spent_s = self._clock.monotonic_s() - began_s
                wait_s = self.patience.wait_s(tries, spent_s, self._chance()) if failure.again else None
                if wait_s is None:
                    raise _given_up(failure, tries, spent_s) from failure
                if spent_s + wait_s < said_s + self.patience.word_s:
                    _LOG.info("%s; tried again in %.1f s", failure, wait_s)
                else:
                    said_s = spent_s
                    text = "%s; tried %d times in %.0f s, given up after %.0f s"
                    _LOG.warning(text, failure, tries, spent_s, self.patience.deadline_s)
                self._sleep(wait_s)

    def once(self, where: str, action: Callable[[], T], *, size_bytes: int = 0) -> T:
        """As ``call``, for what cannot be done again."""
        limit_s = self.patience.limit_s(size_bytes)
        outcome = _bounded(action, limit_s, self.patience.silent_s(size_bytes), partial(_silent, where, limit_s))
        if outcome is None:
            text = f"{where}: no answer within {limit_s:.0f} s" + (f" (from {self.endpoint})" if self.endpoint else "")
            raise StorageSaysNoError(errno.ETIMEDOUT, text, again=True, hint="see whether the storage has trouble")
        if outcome.error is None:
            return cast("T", outcome.result)
        if isinstance(outcome.error, Exception):
            # Judged before it is raised here, where what the caller handles at the moment would become its context.
            raise failure_of(outcome.error, where, self.endpoint) from outcome.error
        raise outcome.error


def _given_up(failure: StorageSaysNoError, tries: int, spent_s: float) -> StorageSaysNoError:
    if tries == 1:
        return failure
    text = f"{failure} (tried {tries} times in {spent_s:.0f} s)"
    return StorageSaysNoError(failure.errno or errno.EIO, text, again=failure.again, hint=failure.hint)


@dataclass(frozen=True, slots=True)
class _Outcome(Generic[T]):
    result: T | None = None
    error: BaseException | None = None


def _silent(where: str, limit_s: float, spent_s: float) -> None:
    _LOG.warning("%s: no answer for %.0f s; waited for up to %.0f s", where, spent_s, limit_s)


def _bounded(
    action: Callable[[], T], limit_s: float, every_s: float, silent: Callable[[float], None]
) -> _Outcome[T] | None:
    """What became of the action, on a thread that is left to itself if it takes too long: drivers may wait for ever.

    Args:
        action: what to do.
        limit_s: how long it may take.
        every_s: how often to tell that it has not come to an end.
        silent: told for how long that was.

    Returns:
        None if it takes longer.
    """
    done: queue.SimpleQueue[_Outcome[T]] = queue.SimpleQueue()

    def run() -> None:
        try:
            outcome: _Outcome[T] = _Outcome(action())
        except BaseException as error:
            outcome = _Outcome(error=error)
        done.put(outcome)

    threading.Thread(target=run, name="storage-call", daemon=True).start()
    spent_s = 0.0
    while spent_s < limit_s:
        wait_s = min(every_s, limit_s - spent_s)
        try:
            return done.get(timeout=wait_s)
        except queue.Empty:
            spent_s += wait_s
            if spent_s < limit_s:
                silent(spent_s)
    return None
