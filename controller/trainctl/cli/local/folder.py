"""The folder of a local installation: made, locked, checked, emptied."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from trainctl.core.errors import ConflictError, PermissionDeniedError, PreconditionError, UsageError
from trainctl.core.system.file_lock import FileLock
from trainctl.core.system.run_folder import CONTROLLER_FILE, END_FILE, NODES

LOCK_NAME = ".local.lock"
_MARKS = (CONTROLLER_FILE, "store.sqlite3", "store.sqlite3.lock")
_CONTENTS = (
    *_MARKS,
    "token",
    LOCK_NAME,
    "store.sqlite3?*",
    "store-seen.json",
    "controller.log",
    END_FILE,
    "fork-server.sock",
    "fork-server.log",
    "tls",
    NODES,
    "jobs",
    "figures",
)
"""Patterns of everything that a local installation keeps in its folder."""


def make(run_dir: Path) -> None:
    """Makes the folder, for its owner only, and checks that it can be written to.

    Raises:
        PermissionDeniedError: it cannot.
        UsageError: the path is a file, or leads through one.
    """
    try:
        run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(f"{error.filename} is a file, a folder was expected", hint="choose another --dir") from error
    except OSError as error:
        raise _refused(run_dir, error.strerror or "cannot be made") from error
    if not os.access(run_dir, os.R_OK | os.W_OK | os.X_OK):
        raise _refused(run_dir, "no permission to write")


def _refused(run_dir: Path, why: str) -> PermissionDeniedError:
    return PermissionDeniedError(
        f"cannot work in {run_dir}: {why}", hint="choose a folder of yours with --dir or TRAINCTL_HOME"
    )


@contextmanager
def locked(run_dir: Path) -> Generator[None, None, None]:
    """Holds the folder against another ``local up`` or ``local down`` at the same time.

    Raises:
        ConflictError: one is at work.
        PermissionDeniedError: the folder belongs to somebody else.
    """
    try:
        lock = FileLock(run_dir / LOCK_NAME)
    except OSError as error:
        raise _refused(run_dir, error.strerror or "cannot be locked") from error
    try:
        if not lock.acquire():
            raise ConflictError(
                f"another `trainctl local up` or `down` (process {lock.holder}) is at work in {run_dir}",
                hint="wait for it, then try again",
            )
        yield
    finally:
        lock.release()


def is_installation(run_dir: Path) -> bool:
    """Whether a controller ever began to run in this folder."""
    return any((run_dir / mark).is_file() for mark in _MARKS)


def purge(run_dir: Path) -> None:
    """Deletes what a local installation keeps in its folder, and the folder if nothing else is in it.

    Raises:
        PreconditionError: this is no such folder.
    """
    if not is_installation(run_dir):
        raise PreconditionError(
            f"{run_dir} is not a folder of a local installation: nothing was deleted",
            hint="name the folder that `trainctl local up` was given with --dir",
        )
    for path in [path for pattern in _CONTENTS for path in run_dir.glob(pattern)]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    if not any(run_dir.iterdir()):
        run_dir.rmdir()


def log_size(path: Path) -> int:
    """Bytes of a log; 0 if there is none."""
    return path.stat().st_size if path.exists() else 0


def log_tail(path: Path, lines: int = 20, *, start: int = 0) -> list[str]:
    """The last lines that a log got after its byte ``start``; nothing if there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(path.stat().st_size - 64 * 1024, start))
            return file.read().decode("utf-8", "replace").splitlines()[-lines:]
    except OSError:
        return []
