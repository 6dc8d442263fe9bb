"""One builder a cache: the workers of a node need the same tokens at the same time, and one of them makes them."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from trainctl.core.errors import UnavailableError
from trainctl.core.system.file_lock import FileLock
from trainctl.core.units import format_duration
from trainctl.parallel.data.progress import say

_POLL_S = 0.05
_SAY_EVERY_S = 5.0


@contextmanager
def exclusive(path: Path, *, what: str, deadline_s: float) -> Generator[None, None, None]:
    """Holds the lock file ``path``; waits for another holder, and says for whom.

    Raises:
        UnavailableError: another process still held it after ``deadline_s`` seconds; names it.
    """
    lock = FileLock(path, mode=0o644)
    try:
        _acquire(lock, path, what=what, deadline_s=deadline_s)
        yield
    finally:
        lock.release()


def _acquire(lock: FileLock, path: Path, *, what: str, deadline_s: float) -> None:
    started_s = time.monotonic()
    say_at_s = started_s + 1.0
    while not lock.acquire():
        now_s = time.monotonic()
        holder = f"process {lock.holder}"
        if now_s - started_s >= deadline_s:
            raise UnavailableError(
                f"expected to get the lock for {what} within {format_duration(deadline_s)}, found it held by {holder}",
                hint=f"see what {holder} is doing; the lock {path} ends with its holder, deleting it does not help",
            )
        if now_s >= say_at_s:
            say_at_s = now_s + _SAY_EVERY_S
            say(f"waiting for {holder} that holds {what} ({format_duration(now_s - started_s)})")
        time.sleep(_POLL_S)
