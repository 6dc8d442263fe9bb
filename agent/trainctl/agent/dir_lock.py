"""One agent a folder."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from trainctl.core.errors import PermissionDeniedError, PreconditionError


def lock_folder(folder: Path) -> int:
    """Makes the folder and locks it for this process's life; returns the descriptor that holds the lock.

    Raises:
        PreconditionError: another agent runs in it.
        PermissionDeniedError: the folder cannot be made or written.
    """
    path = folder / "agent.lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise PermissionDeniedError(
            f"agent folder {folder} cannot be used: {error.strerror}", hint="choose a folder you may write with --dir"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise PreconditionError(
            f"another agent (pid {owner}) already runs in {folder}",
            hint="one agent a folder: stop that one, or give this one another --dir",
        ) from None
    os.truncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor
