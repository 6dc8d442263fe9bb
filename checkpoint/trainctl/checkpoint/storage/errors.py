"""What a medium that refuses is told as, by all who write and read."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Generator, Mapping

from trainctl.checkpoint.storage.rights import missing_right
from trainctl.core.errors import StorageAwayError, StorageRefusedError

_HINTS: Mapping[int, str] = {
    errno.ENOSPC: "free space there, keep fewer checkpoints (spec.checkpoint.keep.last) or use another place",
    errno.EDQUOT: "the quota is used up: free space there or use another place",
    errno.EACCES: "give the user who runs the job permission there",
    errno.EPERM: "give the user who runs the job permission there",
    errno.EROFS: "the file system is mounted read-only: let it be mounted writable, or use another place",
    errno.ENODEV: "make the bucket, or correct the URI",
    errno.ENOSYS: "use another place: this storage cannot do what is asked of it",
    errno.ENOTDIR: "a file is where a folder has to be: remove it, or use another place",
}
LASTING = frozenset(_HINTS)
"""What does not go away within seconds."""


def remedy(error: OSError) -> str:
    """What to do about what a medium refused; of a path on this machine, which right is missing. Empty: who knows."""
    hint: str = getattr(error, "hint", "") or _HINTS.get(error.errno or 0, "")
    right = missing_right(str(error.filename)) if isinstance(error, PermissionError) and error.filename else ""
    return f"{hint}: the right to {right}" if right else hint


@contextlib.contextmanager
def storage_errors(what: str) -> Generator[None, None, None]:
    """Turns what the medium refuses into a CheckpointError that says what was tried and what to do.

    Raises:
        StorageRefusedError: it would refuse again.
        StorageAwayError: it does not answer as it should.
    """
    try:
        yield
    except OSError as error:
        hint = remedy(error)
        # A driver's error begins with what was tried, too.
        message = f"{what} failed: {str(error).removeprefix(f'{what}: ')}"
        if error.errno in LASTING:
            raise StorageRefusedError(message, hint=hint) from error
        hint = hint or "check that the storage is reachable and writable"
        raise StorageAwayError(message, hint=hint) from error
