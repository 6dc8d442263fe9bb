"""Packet sockets in a folder, however long its path is: the kernel takes 107 bytes."""

from __future__ import annotations

import os
import socket
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

_BACKLOG = 64


def listen(path: Path) -> socket.socket:
    """A packet socket that listens at ``path``, for this user only; what an earlier process left there is replaced.

    Raises:
        OSError: it cannot be made there.
    """
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with _short_name(path) as name:
            listener.bind(name)
        path.chmod(0o600)
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def connect(path: Path, timeout_s: float) -> socket.socket:
    """A packet socket that is connected to whoever listens at ``path``, with that timeout.

    Raises:
        OSError: nobody does.
    """
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        channel.settimeout(timeout_s)
        with _short_name(path) as name:
            channel.connect(name)
    except BaseException:
        channel.close()
        raise
    return channel


@contextmanager
def _short_name(path: Path) -> Generator[str, None, None]:
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
