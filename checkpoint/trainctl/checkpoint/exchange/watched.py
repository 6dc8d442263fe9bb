"""Messages of torch's groups: gloo counts one as over only after somebody waited for it in C++, so a thread does."""

from __future__ import annotations

import queue
import threading
from typing import Any

from torch import Tensor


class MessageWork:
    """A send or receive in flight; a watcher thread says when it ended."""

    def __init__(self, work: Any, buffer: Tensor) -> None:
        self._work = work
        self._buffer = buffer
        self._ended = threading.Event()
        self._error = ""

    def watch(self) -> None:
        """Waits for the end in C++; for the watcher thread."""
        self._error = why_failed(self._work)
        self._ended.set()

    def done(self) -> bool:
        """Whether the watcher saw the end."""
        return self._ended.is_set()

    def done_within(self, timeout_s: float) -> bool:
        """See ``Work``."""
        return self._ended.wait(timeout_s)

    def error(self) -> str:
        """Gloo's own words, or nothing."""
        return self._error


class Watchers:
    """Threads that wait, one for each direction and peer: who waits for one rank must not miss what another one did."""

    def __init__(self) -> None:
        self._watchers: dict[tuple[str, int], _Watcher] = {}

    def add(self, way: str, peer: int, work: MessageWork) -> None:
        """One more message that was started."""
        if (way, peer) not in self._watchers:
            self._watchers[way, peer] = _Watcher(f"message-{way}-{peer}")
        self._watchers[way, peer].add(work)

    def stop(self) -> None:
        """After what they still have to wait for."""
        for watcher in self._watchers.values():
            watcher.stop()


class _Watcher:
    """Waits for messages one after the other, in the order they were started."""

    def __init__(self, name: str) -> None:
        self._queue: queue.SimpleQueue[MessageWork | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def add(self, work: MessageWork) -> None:
        """One more that was started."""
        self._queue.put(work)

    def stop(self) -> None:
        """After what it still has to wait for."""
        self._queue.put(None)

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            work.watch()


def why_failed(ended: Any) -> str:
    """What torch says about a ``c10d.Work`` that has ended; nothing if it went well."""
    try:
        ended.wait()
    except RuntimeError as error:
        return first_line(error)
    return ""


def first_line(error: Exception) -> str:
    """Of what torch says: the rest is where in C++ it was."""
    return str(error).strip().splitlines()[0][:300]
