"""How fast a part may be written beside training: what it takes of the processor is spread over more time."""

from __future__ import annotations

import time

SHARE = 0.04
"""Of the processors that the training computes with; what takes less is not held up."""
LONGEST_REST = 1.5
"""For each second of work: a write takes at most two and a half times as long as without rests."""

COPIED_BYTES_PER_S = 4e9
"""What a rank copies beside others at least."""
LONGEST_FIRST_REST_S = 1.0


def first_rest_s(size_bytes: int) -> float:
    """How long to leave the processor to others before the first byte is written, once the copy is whole.

    The training thread goes on then, and wants the interpreter, which a thread that has to wait for a processor would
    keep from it: with 4 ranks on 2 cores, 5 to 40 ms of a stall of 70. And other ranks of the node still copy.

    Args:
        size_bytes: of what was copied.
    """
    return min(size_bytes / COPIED_BYTES_PER_S, LONGEST_FIRST_REST_S)


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
