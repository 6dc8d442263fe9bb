"""What abandoned groups leave behind, kept until it can do no more harm."""

from __future__ import annotations

import contextlib
import queue
import threading
from typing import Protocol

_LOOK_EVERY_S = 0.05


class Abandoned(Protocol):
    """Transport objects, operations and buffers of an abandoned group."""

    def ended(self) -> bool:
        """Whether nothing is in flight any more; never waits."""
        ...


class Quarantine:
    """Holds on to abandoned things, so that the memory they may still write to is nobody else's.

    A thing whose operations ended is dropped, which closes its connections and so ends what the peers still wait for.
    All of that is done by a thread of its own: dropping may join threads of the transport. What that thread still holds
    when the process ends is never dropped, so that no such wait keeps the process from ending.
    """

    def __init__(self) -> None:
        self._inbox: queue.SimpleQueue[Abandoned] = queue.SimpleQueue()
        threading.Thread(target=_keep, args=(self._inbox,), name="quarantine", daemon=True).start()

    def admit(self, thing: Abandoned) -> None:
        """Keeps ``thing`` until it ended; never waits."""
        self._inbox.put(thing)


def _keep(inbox: queue.SimpleQueue[Abandoned]) -> None:
    kept: list[Abandoned] = []
    while True:
        with contextlib.suppress(queue.Empty):
            kept.append(inbox.get(timeout=_LOOK_EVERY_S if kept else None))
        kept = [thing for thing in kept if not thing.ended()]
