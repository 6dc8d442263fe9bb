"""What abandoned groups leave behind, kept until it can do no more harm."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol


class Abandoned(Protocol):
    """Transport objects, operations and buffers of an abandoned group."""

    def ended(self) -> bool:
        """Whether nothing is in flight any more; never waits."""
        ...


class Quarantine:
    """Holds on to abandoned things, so that the memory they may still write to is nobody else's.

    A thing whose operations ended is dropped by a helper thread, since dropping may join threads of the transport. That
    also closes its connections, which ends what the peers still wait for.
    """

    def __init__(self) -> None:
        self._kept: list[Abandoned] = []

    def admit(self, thing: Abandoned) -> None:
        """Keeps ``thing`` until it ended; never waits."""
        self._kept.append(thing)
        self.sweep()

    def sweep(self) -> int:
        """Drops what ended; returns how many things are left."""
        ended = [thing for thing in self._kept if thing.ended()]
        self._kept = [thing for thing in self._kept if thing not in ended]
        if ended:
            threading.Thread(target=_drop(ended), name="quarantine", daemon=True).start()
        return len(self._kept)


def _drop(things: list[Abandoned]) -> Callable[[], None]:
    return things.clear
