"""How the writers of one save name it; and what a medium that refuses is told as, by all who write and read."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from dataclasses import dataclass

from trainctl.checkpoint.manifest.names import attempt_folder
from trainctl.core.errors import StorageAwayError, StorageRefusedError

_HINTS = {
    errno.ENOSPC: "free space there, keep fewer checkpoints (checkpoint.keep.last) or save elsewhere",
    errno.EDQUOT: "the quota is used up: free space there or save elsewhere",
    errno.EACCES: "give the user who runs the job permission there",
    errno.EPERM: "give the user who runs the job permission there",
    errno.EROFS: "the file system is mounted read-only: save elsewhere",
    errno.ENODEV: "make the bucket, or correct the URI",
    errno.ENOSYS: "save elsewhere: this store lacks what is asked of it",
    errno.ENOTDIR: "a file is where a folder has to be: remove it, or save elsewhere",
}
LASTING = frozenset(_HINTS)
"""What does not go away within seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try to save one step; all its writers name it alike (``manifest.names.attempt_id``).

    Attributes:
        job: uid of the job.
        step: step that the state is at.
        lineage: chain of steps it belongs to.
        epoch: leader's fencing epoch of the generation that saves.
        attempt: 16 hex digits, never used before.
    """

    job: str
    step: int
    lineage: int
    epoch: int
    attempt: str

    @property
    def folder(self) -> str:
        """Where it lies under the root."""
        return attempt_folder(self.step, self.attempt)

    def __str__(self) -> str:
        return f"job {self.job}, step {self.step}, attempt {self.attempt}"


@contextlib.contextmanager
def storage_errors(what: str) -> Iterator[None]:
    """Turns what the medium refuses into a CheckpointError that says what was tried and what to do.

    Raises:
        StorageRefusedError: it would refuse again.
        StorageAwayError: later it may not.
    """
    try:
        yield
    except OSError as error:
        hint = getattr(error, "hint", "") or _HINTS.get(error.errno or 0, "")
        if error.errno in LASTING:
            raise StorageRefusedError(f"{what} failed: {error}", hint=hint) from error
        hint = hint or "check that the storage is reachable and writable"
        raise StorageAwayError(f"{what} failed: {error}", hint=hint) from error
