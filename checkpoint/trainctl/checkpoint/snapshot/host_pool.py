"""Host memory for snapshots: taken from the system once, touched once, and used again.

The first write to fresh memory costs several times as much as the copy itself, since the system has to find a page for
every 4 KiB (measured: 3 to 20 times). So buffers are kept, and there are no more of them than a job may use. Those that
a device copies into are pinned besides, the first time, which takes long, too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import torch

from trainctl.checkpoint.snapshot.cuda import pin as pin_for_cuda


@dataclass(slots=True, eq=False)  # one is not the other, whatever is in them
class HostBuffer:
    """One snapshot's memory; give it back to the pool that it is from.

    Attributes:
        bytes: uint8, 1-d, on the host; as large as was asked for, or larger.
        pinned: a device copies into it by itself.
    """

    bytes: torch.Tensor
    pinned: bool = False


def plain_memory(size_bytes: int) -> torch.Tensor:
    """Memory of this process, every page of it touched."""
    return torch.zeros(size_bytes, dtype=torch.uint8)


class HostPool:
    """At most ``count`` buffers; threads may share it.

    Args:
        count: snapshots that may be in flight at once.
        memory: makes a buffer of so many bytes.
        pin: pins one for as long as it lives.
    """

    def __init__(
        self,
        count: int,
        memory: Callable[[int], torch.Tensor] = plain_memory,
        pin: Callable[[torch.Tensor], None] = pin_for_cuda,
    ) -> None:
        self._count = count
        self._memory = memory
        self._pin = pin
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

    def take(self, size_bytes: int, within_s: float = 0.0, *, pinned: bool = False) -> HostBuffer | None:
        """A buffer of at least this size; None if all are in use for so long. One that is too small is replaced.

        Args:
            size_bytes: at least.
            within_s: how long to wait for one.
            pinned: a CUDA device copies into it. The thread that trains takes such a one, since to pin memory may wait
                for the device, and so for what NCCL has it do: all ranks have to come by at the same point.

        Raises:
            MemoryError, RuntimeError: the system has no more memory, or none to pin.
        """
        with self._lock:
            if not self._lock.wait_for(lambda: len(self._taken) < self._count, within_s):
                return None
            found = self._fitting(size_bytes)
            if pinned and not found.pinned:
                try:
                    self._pin(found.bytes)
                except BaseException:
                    self._free.append(found)
                    raise
                found.pinned = True
            self._taken[id(found)] = found.bytes.numel()
            return found

    def _fitting(self, size_bytes: int) -> HostBuffer:
        """One of those that are free, or a new one; it is in no list."""
        fitting = [buffer for buffer in self._free if buffer.bytes.numel() >= size_bytes]
        if fitting:
            found = min(fitting, key=lambda buffer: buffer.bytes.numel())
            self._free.remove(found)
            return found
        if len(self._free) + len(self._taken) >= self._count:
            self._free.pop()  # before the new one is made, so that both never exist at once
        return HostBuffer(self._memory(size_bytes))

    def give_back(self, buffer: HostBuffer) -> None:
        """Nobody reads or writes it any more; giving it back twice is no harm."""
        with self._lock:
            if id(buffer) in self._taken:
                del self._taken[id(buffer)]
                self._free.append(buffer)
                self._lock.notify_all()
