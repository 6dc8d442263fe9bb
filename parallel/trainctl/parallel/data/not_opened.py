"""Why a URI could not be opened, in words."""

from __future__ import annotations

import os

from trainctl.core.errors import DataError


def not_opened(error: Exception, *, wanted: str, path: str) -> DataError:
    """What fsspec's error says has really happened; it calls every URL that it cannot open a file that is not there.

    Args:
        error: of fsspec or of one of its backends, which have classes of their own.
        wanted: what was expected, with the URI.
        path: of the URI in the job file.
    """
    cause = error.__cause__ if isinstance(error, FileNotFoundError) else error
    if cause is None:
        return DataError(
            f"expected {wanted}, found nothing there",
            hint=f"{path} takes a folder, file, glob, URL or python-stdlib, seen from the worker's node",
        )
    status = getattr(cause, "status", None)
    if isinstance(status, int):
        reason = getattr(cause, "message", "")
        return DataError(
            f"expected {wanted}, found that the server answers: HTTP status {status} {reason}".rstrip(),
            hint=f"check {path}, and whether the server wants to know who asks",
        )
    if isinstance(cause, ConnectionError | TimeoutError) or hasattr(cause, "os_error"):  # as aiohttp names it
        number = getattr(cause, "errno", None) or 0
        why = os.strerror(number) if number > 0 else f"{type(cause).__name__}: {cause}"
        return DataError(
            f"expected {wanted}, found no server that answers: {why}",
            hint=f"check the address in {path}, and whether the worker's node reaches it",
        )
    return DataError(
        f"expected {wanted}, found: {type(cause).__name__}: {cause}",
        hint="check the URI, its permissions, and that fsspec's package for this protocol is installed",
    )
