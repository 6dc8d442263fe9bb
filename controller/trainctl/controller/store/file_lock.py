"""One process per store: an exclusive lock file that names its holder and ends with it, however it ends."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from trainctl.controller.store.port import StoreLockedError
from trainctl.core.errors import PermissionDeniedError


class FileLock:
    """Holds ``path`` locked from construction until ``release`` or the end of the process.

    Raises:
        StoreLockedError: another process holds it; names its pid.
        PermissionDeniedError: the lock file cannot be opened.
    """

    def __init__(self, path: Path, *, what: str) -> None:
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise PermissionDeniedError(
                f"{what} cannot be opened: {path}: {error.strerror}", hint="check that its folder exists and is yours"
            ) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._descriptor)
            if error.errno != errno.EWOULDBLOCK:
                raise
            raise StoreLockedError(
                f"{what} is in use by process {holder}",
                hint=f"stop that controller first (trainctl local down, or kill {holder}), or use another folder",
            ) from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Lets others take it. The file stays: removing it would let two processes lock two files of one name."""
        os.close(self._descriptor)
