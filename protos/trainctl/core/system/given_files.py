"""Reading small files that somebody named: a named pipe or a device is an error, not a wait without an end."""

from __future__ import annotations

import errno
import io
import os
import stat

TOKEN_BYTES = 64 * 1024
"""More than any bearer token has."""
_DESCRIPTORS = ("/dev/fd/", "/proc/self/fd/")
"""Where a shell puts the pipe of ``<(command)``: somebody writes to that, or has written."""


def read_given(name: str | os.PathLike[str], limit: int) -> bytes:
    """The file's content, at most ``limit`` bytes of it.

    Raises:
        IsADirectoryError: it is a folder.
        OSError: it cannot be read, or is neither a regular file nor the pipe of a process substitution.
    """
    with io.BufferedReader(io.FileIO(name, opener=_without_waiting)) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) and not _ends(name, found):
            what = "a named pipe" if stat.S_ISFIFO(found.st_mode) else "a device"
            raise OSError(errno.EINVAL, f"it is {what}, expected a regular file", name)
        os.set_blocking(file.fileno(), True)
        return file.read(limit)


def _ends(name: str | os.PathLike[str], found: os.stat_result) -> bool:
    """Whether reading something that is no regular file comes to an end all the same."""
    if stat.S_ISFIFO(found.st_mode):
        return os.fspath(name).startswith(_DESCRIPTORS)
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == os.stat(os.devnull).st_rdev


def _without_waiting(name: str, flags: int) -> int:
    """Opens what may be a named pipe without a writer; what it is, the open file tells."""
    return os.open(name, flags | os.O_NONBLOCK | os.O_NOCTTY)
