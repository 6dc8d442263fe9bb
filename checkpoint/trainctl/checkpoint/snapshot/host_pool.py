"""Host memory for snapshots: taken from the system once, touched once, and used again.

The first write to fresh memory costs several times as much as the copy itself, since the system has to find a page for
every 4 KiB (measured: 3 to 20 times). So buffers are kept, and there are no more of them than a job may use.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True, eq=False)  # one is not the other, whatever is in them
class HostBuffer:
    """One snapshot's memory; give it back to the pool that it is from."""

    bytes: torch.Tensor
    """uint8, 1-d, on the host; as large as was asked for, or larger."""


def plain_memory(size_bytes: int) -> torch.Tensor:
    """Memory of this process, every page of it touched."""
    return torch.zeros(size_bytes, dtype=torch.uint8)


def pinned_memory(size_bytes: int) -> torch.Tensor:
    """Memory that a CUDA device copies into by itself."""
    return torch.zeros(size_bytes, dtype=torch.uint8, pin_memory=True)


class HostPool:
    """At most ``count`` buffers; threads may share it.

    Args:
        count: snapshots that may be in flight at once.
        memory: makes a buffer of so many bytes.
    """

    def __init__(self, count: int, memory: Callable[[int], torch.Tensor] = plain_memory) -> None:
        self._count = count
        self._memory = memory
        self._lock = threading.Condition()
        self._free: list[HostBuffer] = []
        self._taken: dict[int, int] = {}

    @property
    def size_bytes(self) -> int:
        """Memory that is free for the next snapshots."""
        with self._lock:
            return sum(buffer.bytes.numel() for buffer in self._free)

    @property
    def held_bytes(self) -> int:
        """Memory that it has taken from the system, in use or not."""
        with self._lock:
            return sum(buffer.bytes.numel() for buffer in self._free) + sum(self._taken.values())

    def take(self, size_bytes: int, within_s: float = 0.0) -> HostBuffer | None:
        """A buffer of at least this size; None if all are in use for so long. One that is too small is replaced."""
        with self._lock:
            if not self._lock.wait_for(lambda: len(self._taken) < self._count, within_s):
                return None
            fitting = [buffer for buffer in self._free if buffer.bytes.numel() >= size_bytes]
            if fitting:
                found = min(fitting, key=lambda buffer: buffer.bytes.numel())
                self._free.remove(found)
            else:
                if len(self._free) + len(self._taken) >= self._count:
                    self._free.pop()  # before the new one is made, so that both never exist at once
                found = HostBuffer(self._memory(size_bytes))
            self._taken[id(found)] = found.bytes.numel()
            return found

    def give_back(self, buffer: HostBuffer) -> None:
        """Nobody reads or writes it any more; giving it back twice is no harm."""
        with self._lock:
            if id(buffer) in self._taken:
                del self._taken[id(buffer)]
                self._free.append(buffer)
                self._lock.notify_all()
