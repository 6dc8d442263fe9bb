"""How the chunks of a snapshot come to the host: at once where the state lives there, else in a queue of the device."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager
from typing import Generic, Protocol, TypeVar

import torch

from trainctl.checkpoint.live.state import LocalState
from trainctl.checkpoint.snapshot.cuda import CudaDevice

IN_FLIGHT_BYTES = 64 << 20
"""On their way from a device at once. What else comes from it (a loss that is printed) waits behind no more."""


class Copier(Protocol):
    """Copies one snapshot. Made by the thread that trains; another one may copy."""

    @property
    def seen_by_host(self) -> bool:
        """What the host reads of the live tensors is what was done to them: nothing is on its way."""
        ...

    def put(self, target: torch.Tensor, source: torch.Tensor) -> None:
        """Begins to copy a chunk: after what the calling thread had its device do before, and before what it has it do.

        Inside of ``beside_training`` it is the block's own order that counts.
        """
        ...

    def mark_moment(self) -> None:
        """What the calling thread has had its device do by now belongs to the snapshot; nothing later does."""
        ...

    def beside_training(self) -> AbstractContextManager[None]:
        """The calling thread's chunks are read after the moment, and beside what training does after it."""
        ...

    def finish(self) -> None:
        """Returns when everything that was begun has arrived."""
        ...

    def hold_back(self) -> None:
        """What the calling thread has its device do from now on comes after everything that was begun."""
        ...


class HostCopier:
    """Implements ``Copier`` for memory that the processor copies: begun is done."""

    seen_by_host = True

    def put(self, target: torch.Tensor, source: torch.Tensor) -> None:
        """Copies it."""
        target.copy_(source)

    def mark_moment(self) -> None:
        """It is now: what was called is done."""

    def beside_training(self) -> AbstractContextManager[None]:
        """The thread that copies is beside the one that trains."""
        return contextlib.nullcontext()

    def finish(self) -> None:
        """Everything has arrived."""

    def hold_back(self) -> None:
        """Nothing is on its way."""


class Event(Protocol):
    """A place in a queue of a device."""

    def query(self) -> bool:
        """Whether the device has come that far."""
        ...

    def synchronize(self) -> None:
        """Returns when it has; takes no processor meanwhile."""
        ...


EventT = TypeVar("EventT", bound=Event)


class Device(Protocol[EventT]):
    """A device that does what it is told in queues: that of the calling thread, and one beside it for copies."""

    def copy(self, target: torch.Tensor, source: torch.Tensor) -> None:
        """Tells the calling thread's queue to copy to the host; comes back at once."""
        ...

    def mark(self) -> EventT:
        """The end of the calling thread's queue as it is now."""
        ...

    def wait(self, event: EventT) -> None:
        """What the calling thread's queue is told from now on is done after the event; comes back at once."""
        ...

    def beside(self) -> AbstractContextManager[None]:
        """In the block the calling thread's queue is the one for copies."""
        ...


class DeviceCopier(Generic[EventT]):
    """Implements ``Copier`` for tensors on devices, whose copies need no processor; others it copies as they are.

    The live tensors and the target have to stay until ``finish`` is back: whoever calls it holds them.

    Args:
        devices: by their names.
    """

    seen_by_host = False

    def __init__(self, devices: Mapping[torch.device, Device[EventT]]) -> None:
        self._devices = devices
        self._moments: dict[torch.device, EventT] = {}
        self._beside = False
        self._on_their_way: deque[tuple[EventT, int]] = deque()
        self._in_flight_bytes = 0

    def put(self, target: torch.Tensor, source: torch.Tensor) -> None:
        """Tells the device; beside training, waits as long as too much is on its way."""
        device = self._devices.get(source.device)
        if device is None:
            target.copy_(source)
            return
        device.copy(target, source)
        if self._beside:
            self._on_their_way.append((device.mark(), source.nbytes))
            self._in_flight_bytes += source.nbytes
            self._make_room()

    def mark_moment(self) -> None:
        """Marks the queue of each device."""
        self._moments = {name: device.mark() for name, device in self._devices.items()}

    @contextlib.contextmanager
    def beside_training(self) -> Generator[None, None, None]:
        """A queue of its own for each device, which waits for the moment."""
        with contextlib.ExitStack() as stack:
            for name, device in self._devices.items():
                stack.enter_context(device.beside())
                device.wait(self._moments[name])
            self._beside = True
            yield

    def finish(self) -> None:
        """Waits for the moment, before which some may have been copied, and for the queues beside."""
        for name, device in self._devices.items():
            with device.beside():
                if name in self._moments:
                    self._moments[name].synchronize()
                device.mark().synchronize()

    def hold_back(self) -> None:
        """By events: this thread can go on to tell the devices what comes then."""
        for device in self._devices.values():
            with device.beside():
                last = device.mark()
            device.wait(last)

    def _make_room(self) -> None:
        while self._on_their_way:
            event, size_bytes = self._on_their_way[0]
            if not event.query():
                if self._in_flight_bytes <= IN_FLIGHT_BYTES:
                    return
                event.synchronize()
            self._on_their_way.popleft()
            self._in_flight_bytes -= size_bytes


def cuda_devices(state: LocalState) -> list[torch.device]:
    """Those that the state lives on."""
    return sorted({t.tensor.device for t in state.tensors if t.tensor.device.type == "cuda"}, key=str)


def copier_of(state: LocalState) -> Copier:
    """What copies this state."""
    devices = cuda_devices(state)
    return DeviceCopier({device: CudaDevice(device) for device in devices}) if devices else HostCopier()


def await_training(state: LocalState) -> None:
    """On return the calling thread's devices have done what they were told: any thread may read the state."""
    copier = copier_of(state)
    copier.mark_moment()
    copier.finish()
