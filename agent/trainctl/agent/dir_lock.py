"""One agent a folder."""

from __future__ import annotations

from pathlib import Path

from trainctl.core.errors import PermissionDeniedError, PreconditionError
from trainctl.core.system.file_lock import FileLock


def lock_folder(folder: Path) -> FileLock:
    """Makes the folder and locks it for this process's life.

    It is made for this user alone: what workers print lies in it, in files that have the mode of any others.

    Raises:
        PreconditionError: another agent runs in it.
        PermissionDeniedError: the folder cannot be made or written.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = FileLock(folder / "agent.lock")
    except OSError as error:
        raise PermissionDeniedError(
            f"agent folder {folder} cannot be used: {error.strerror}", hint="choose a folder you may write with --dir"
        ) from error
    lock.acquire_or(
        lambda holder: PreconditionError(
            f"another agent (process {holder}) already runs in {folder}",
            hint="one agent a folder: stop that one, or give this one another --dir",
        )
    )
    return lock
