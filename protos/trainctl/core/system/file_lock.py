"""An exclusive lock between the processes of one machine, which its holder cannot leave behind."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

UNKNOWN_HOLDER = "unknown"


class FileLock:
    """A lock file that names its holder; the kernel drops the lock when the holder ends, however it ends.

    Making it opens the file; it is held from ``acquire`` to ``release``. The file stays: if it were removed, two
    processes could lock two files of one name.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, path: Path, *, mode: int = 0o600) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)

    def acquire(self) -> bool:
        """Whether this process holds the lock now; never waits."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        with contextlib.suppress(OSError):  # a full disk: the lock is what counts, the name is a courtesy
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)
        return True

    def acquire_or(self, busy: Callable[[str], Exception]) -> None:
        """Holds the lock, or closes the file and raises what ``busy`` makes of the holder's process id."""
        if not self.acquire():
            holder = self.holder
            self.release()
            raise busy(holder)

    @property
    def holder(self) -> str:
        """Process id of the newest holder, or ``UNKNOWN_HOLDER``."""
        return os.pread(self._descriptor, 32, 0).decode(errors="replace").strip() or UNKNOWN_HOLDER

    def release(self) -> None:
        """Lets others take it; for good, the file is closed."""
        os.close(self._descriptor)
