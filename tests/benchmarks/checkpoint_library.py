"""The library's way to save beside training: ranks agree on it, copy lazily, write, and complete the checkpoint."""

from __future__ import annotations

from pathlib import Path

from trainctl.checkpoint.library import Checkpointer
from trainctl.checkpoint.library.pending import PendingSave
from trainctl.checkpoint.live.state import LocalState

LIBRARY = "library"


class LibrarySaving:
    """A save on its way; the checkpoint is complete when it is done, where other sides have but written their parts."""

    def __init__(self, pending: PendingSave) -> None:
        self._pending = pending

    def fence(self) -> None:
        """Called before the state changes."""
        if not self._pending.fence():
            raise RuntimeError(f"the copy was dropped: {self._pending.failure}")

    @property
    def done(self) -> bool:
        """Whether all ranks know of the checkpoint."""
        if not self._pending.done():
            return False
        self._pending.result(0.0)  # raises where it failed
        return True


class Library:
    """Saves one state, again and again, to one folder.

    Args:
        state: this rank's part.
    """

    def __init__(self, state: LocalState) -> None:
        self._state = state
        self._checkpointer: Checkpointer | None = None
        self._step = 0

    def begin(self, folder: Path) -> LibrarySaving:
        """All ranks call it together."""
        if self._checkpointer is None:
            self._checkpointer = Checkpointer(str(folder))
        self._step += 1
        return LibrarySaving(self._checkpointer.async_save_state(self._state, step=self._step, lazy=True))
