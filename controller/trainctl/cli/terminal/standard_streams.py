"""The three streams of this process, which whoever started it may have closed (``<&-``, ``>&-``)."""

from __future__ import annotations

import io
import os
import sys
from typing import BinaryIO

from trainctl.core.errors import UsageError

_HINT = "name a file, or pipe it in: trainctl submit -f - < job.yaml"


def hold_closed_places() -> None:
    """Opens what is closed so that every use of it still fails: no connection and no file must get its number.

    gRPC writes its notices to 2, whatever that is by then. Call it before anything else is opened.
    """
    for descriptor, other_way in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_RDONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, other_way)  # the lowest number that is free is this one


def standard_input() -> BinaryIO:
    """Where ``-`` reads from.

    Raises:
        UsageError: it is closed.
    """
    if sys.stdin is None:
        raise UsageError("-f -: standard input is closed", hint=_HINT)
    return sys.stdin.buffer


def read_input(stream: BinaryIO, limit: int) -> bytes:
    """At most ``limit`` bytes of standard input.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        return stream.read(limit)
    except (OSError, ValueError) as error:
        reason = "it is not open for reading" if isinstance(error, io.UnsupportedOperation) else _reason(error)
        raise UsageError(f"-f -: standard input cannot be read: {reason}", hint=_HINT) from error


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else "it is closed"
