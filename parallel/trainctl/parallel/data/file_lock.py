"""A lock between the processes of one machine that its holder cannot leave behind: the kernel drops it at death."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainctl.core.errors import UnavailableError
from trainctl.core.units import format_duration
from trainctl.parallel.data.progress import say

_POLL_S = 0.05
_SAY_EVERY_S = 5.0


@contextmanager
def exclusive(path: Path, *, what: str, deadline_s: float) -> Iterator[None]:
    """Holds the lock file ``path``; waits for another holder, and says for whom.

    Raises:
        UnavailableError: another process still held it after ``deadline_s`` seconds; names it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        _acquire(descriptor, path, what=what, deadline_s=deadline_s)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()}".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, path: Path, *, what: str, deadline_s: float) -> None:
    started_s = time.monotonic()
    say_at_s = started_s + 1.0
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            pass
        now_s = time.monotonic()
        holder = os.pread(descriptor, 256, 0).decode(errors="replace") or "another process"
        if now_s - started_s >= deadline_s:
            raise UnavailableError(
                f"expected to get the lock for {what} within {format_duration(deadline_s)}, found it held by {holder}",
                hint=f"see what {holder} is doing; the lock {path} ends with its holder, deleting it does not help",
            )
        if now_s >= say_at_s:
            say_at_s = now_s + _SAY_EVERY_S
            say(f"waiting for {holder} that holds {what} ({format_duration(now_s - started_s)})")
        time.sleep(_POLL_S)
