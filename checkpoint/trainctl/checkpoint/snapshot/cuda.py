"""CUDA devices as snapshots need them: a queue for copies beside the training's, and host memory that they copy into.

A device copies into pinned memory by itself, in a stream of its own, while its kernels and those of NCCL run in others;
into other memory the driver copies, in pieces, while the calling thread waits.
"""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections.abc import Generator
from typing import Any, cast

import torch

_PORTABLE = 1
"""``cudaHostRegisterPortable``: pinned for every device of the process."""


class CudaDevice:
    """Implements ``Device`` with streams and events; made by the thread that trains."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._beside = _stream_for_copies(device)

    def copy(self, target: torch.Tensor, source: torch.Tensor) -> None:
        """In the thread's current stream. ``source`` may go: its memory is used again only in that stream's order."""
        target.copy_(source, non_blocking=True)

    def mark(self) -> torch.cuda.Event:
        """An event that is waited for asleep: waiting awake would take a processor from the training."""
        event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        return event

    def wait(self, event: torch.cuda.Event) -> None:
        """The stream waits, not the thread."""
        torch.cuda.current_stream(self._device).wait_event(event)

    @contextlib.contextmanager
    def beside(self) -> Generator[None, None, None]:
        """The device comes first: a thread that never chose one would leave a context on device 0 behind."""
        with torch.cuda.device(self._device), torch.cuda.stream(self._beside):
            yield


@functools.cache
def _stream_for_copies(device: torch.device) -> torch.cuda.Stream:
    """One for all snapshots: torch deals out the same few streams again and again, also to others."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def pin(memory: torch.Tensor) -> None:
    """Pins a tensor's memory where it is, for as long as the tensor lives.

    Not by ``pin_memory=True``, which takes up to twice as much (the next power of two) and gives nothing back.

    Raises:
        RuntimeError: the system has not so much memory to pin.
    """
    device = torch.cuda.current_device()
    address, size_bytes = memory.data_ptr(), memory.nbytes
    cudart = cast("Any", torch.cuda.cudart())  # type: ignore[no-untyped-call]
    failed = int(cudart.cudaHostRegister(address, size_bytes, _PORTABLE))
    if failed:
        raise RuntimeError(f"cannot pin {size_bytes} bytes of host memory: CUDA error {failed}")
    weakref.finalize(memory, _unpin, device, address).atexit = False  # then all goes with the process


def _unpin(device: int, address: int) -> None:
    with torch.cuda.device(device):
        torch.cuda.cudart().cudaHostUnregister(address)  # type: ignore[no-untyped-call]
