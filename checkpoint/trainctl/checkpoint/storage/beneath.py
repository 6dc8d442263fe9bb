"""Reads files that somebody else put into a folder, who may not read what this process may.

A job writes its records where it likes; the controller reads them back and shows them to whoever may see the job. A
link there must not make it show a file of its own, nor a pipe or an endless file make it wait or fill its memory.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from trainctl.checkpoint.storage.local import LocalStorage
from trainctl.checkpoint.storage.port import Storage


def read_beneath(storage: Storage, path: str, most_bytes: int) -> bytes:
    """The content of a regular file that really lies in the folder.

    Raises:
        OSError: it is missing, larger than ``most_bytes``, no regular file, or a link leads out of the folder to it.
    """
    if isinstance(storage, LocalStorage):
        return _read_local(Path(storage.uri), path, most_bytes)
    _refuse_large(storage.size(path) or 0, f"{storage.uri}/{path}", most_bytes)
    return storage.read(path)


def _read_local(folder: Path, path: str, most_bytes: int) -> bytes:
    """What was opened is looked at, and not what has the name a moment before."""
    where = str(folder / path)
    descriptor = os.open(where, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "no regular file", where)
        if not Path(os.readlink(f"/proc/self/fd/{descriptor}")).is_relative_to(folder.resolve()):
            raise PermissionError(errno.EPERM, "a link leads out of the folder", where)
        _refuse_large(found.st_size, where, most_bytes)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(most_bytes)
    finally:
        os.close(descriptor)


def _refuse_large(size_bytes: int, where: str, most_bytes: int) -> None:
    if size_bytes > most_bytes:
        raise OSError(errno.EFBIG, f"expected at most {most_bytes} bytes, found {size_bytes}", where)
