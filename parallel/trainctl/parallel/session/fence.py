"""The snapshot fence: whoever reads the state in the background lets go of it before the state changes."""

from __future__ import annotations

from typing import Protocol


class StateReader(Protocol):
    """A snapshot in flight."""

    def finish(self, timeout_s: float) -> bool:
        """Waits at most so long until it has read everything; whether it has."""
        ...

    def drop(self) -> None:
        """Gives the snapshot up; on return it reads no more."""
        ...


class SnapshotFence:
    """Passed once a step, between the reduction and the vote. Synchronous checkpoints need no reader here."""

    def __init__(self) -> None:
        self._readers: list[StateReader] = []

    def add(self, reader: StateReader) -> None:
        """``reader`` has begun to read the state."""
        self._readers.append(reader)

    def wait_until_clear(self, timeout_s: float) -> None:
        """Returns when nobody reads the state any more; drops what takes longer than ``timeout_s`` each."""
        readers, self._readers = self._readers, []
        for reader in readers:
            if not reader.finish(timeout_s):
                reader.drop()
