"""How fast a part may be written beside training: what it takes of the processor is spread over more time."""

from __future__ import annotations

import time

SHARE = 0.04
"""Of the processors that the training computes with; what takes less is not held up."""
LONGEST_REST = 1.5
"""For each second of work: a write takes at most two and a half times as long as without rests."""


def rest_s(processor_s: float, took_s: float, processors: int) -> float:
    """How long to rest after some work.

    Args:
        processor_s: processor time of the work.
        took_s: time that it took.
        processors: that the training computes with.
    """
    return min(max(0.0, processor_s / (SHARE * processors) - took_s), LONGEST_REST * took_s)


class Pace:
    """The rests of one thread between the pieces of its work; to be used on that thread only."""

    def __init__(self, processors: int) -> None:
        self._processors = processors
        self.resume()

    def resume(self) -> None:
        """Work goes on now."""
        self._since_s, self._processor_s = time.monotonic(), time.thread_time()

    def due_s(self) -> float:
        """How long to rest before the next piece; call ``resume`` afterwards."""
        took_s = time.monotonic() - self._since_s
        return rest_s(time.thread_time() - self._processor_s, took_s, self._processors)
