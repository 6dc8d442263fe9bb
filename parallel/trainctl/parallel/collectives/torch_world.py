"""torch's own default process group, for models that communicate by themselves (FSDP2), for the life of one generation.

Seen with torch 2.13 and gloo: a thread inside a collective cannot be called back, and neither ``abort``, ``shutdown``
nor ``destroy_process_group`` of a rank that leaves ends what the others wait for. Closed connections do, on both ends.
So the connections that the group made are remembered, and cutting them is what ends it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Mapping
from datetime import timedelta

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore, PrefixStore, Store, TCPStore
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from trainctl.parallel.collectives.port import Rendezvous
from trainctl.parallel.collectives.wait import Waiter

_LOOK_EVERY_S = 0.05
_SOCKETS = "/proc/self/fd"


class TorchWorld:
    """The default process group and a mesh over it; one at a time in a process.

    Attributes:
        mesh: one axis, ``dp_shard``, over all ranks of the generation.
    """

    def __init__(self, mesh: DeviceMesh, connections: dict[int, str], device: torch.device) -> None:
        self.mesh = mesh
        self._connections = connections
        self._device = device
        self._cut = False

    @classmethod
    def open(cls, rendezvous: Rendezvous, device: torch.device, waiter: Waiter) -> TorchWorld:
        """Makes the group; all ranks do at the same time.

        Told to stop, it does so at once as long as not all ranks came. In the moment in which they connect to each
        other, gloo may wait for a rank that left already: that takes the rendezvous' time-out.

        Args:
            rendezvous: of the generation; the group meets under a prefix of its own.
            device: of this rank.
            waiter: for all waiting.

        Raises:
            Interrupted, CollectiveError: as ``Waiter.wait``; nothing is left of the group.
        """
        making = _Making(rendezvous, device)
        try:
            waiter.wait(making, "building torch's process group")
        except BaseException:
            making.give_up(waiter.touch)
            _forget()
            raise
        mesh = init_device_mesh(device.type, (rendezvous.size,), mesh_dim_names=("dp_shard",))
        return cls(mesh, making.connections(), device)

    def cut(self) -> None:
        """Ends every operation in flight, here and at the peers; safe to repeat, and from any thread."""
        if self._cut:
            return
        self._cut = True
        if self._device.type == "cuda":
            # torch has no public name for it.
            dist.distributed_c10d._abort_process_group()  # pyright: ignore[reportPrivateUsage]
        _shut_down(self._connections)

    def close(self) -> None:
        """Cuts the connections and makes room for another group. What is left of the old one must not be used."""
        self.cut()
        _forget()


class _Making:
    """Implements ``Work``: the group is made on a thread of its own, since torch does not come back meanwhile."""

    def __init__(self, rendezvous: Rendezvous, device: torch.device) -> None:
        self._before = _sockets()
        self._error = ""
        self._thread = threading.Thread(target=self._make, args=(rendezvous, device), name="torch-world", daemon=True)
        self._thread.start()

    def done(self) -> bool:
        return not self._thread.is_alive()

    def done_within(self, timeout_s: float) -> bool:
        self._thread.join(timeout_s)
        return self.done()

    def error(self) -> str:
        return self._error

    def connections(self) -> dict[int, str]:
        """What was opened since it began."""
        return {number: link for number, link in _sockets().items() if self._before.get(number) != link}

    def give_up(self, touch: Callable[[], None]) -> None:
        """Cuts its connections until it has ended: a process has but one group, and must not get this one later."""
        _shut_down(self.connections())
        while not self.done_within(_LOOK_EVERY_S):
            touch()
            _shut_down(self.connections())

    def _make(self, rendezvous: Rendezvous, device: torch.device) -> None:
        timeout = timedelta(seconds=rendezvous.timeout_s)
        try:
            store: Store = HashStore()
            if rendezvous.size > 1:
                host, _, port = rendezvous.store_address.rpartition(":")
                store = TCPStore(host, int(port), None, False, timeout, False)
            dist.init_process_group(
                "nccl" if device.type == "cuda" else "gloo",
                store=PrefixStore(f"{rendezvous.prefix}/torch", store),
                rank=rendezvous.rank,
                world_size=rendezvous.size,
                timeout=timeout,
            )
        except Exception as error:  # of whatever kind: it is raised where it is waited for
            self._error = str(error).partition("\n")[0][:300] or type(error).__name__


def _shut_down(connections: Mapping[int, str]) -> None:
    for number, link in connections.items():
        if _link(number) == link:  # else it was closed, and the number may be somebody else's by now
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(number)) as connection:
                connection.getpeername()  # a listener has none: gloo ends the process when that is shut down
                connection.shutdown(socket.SHUT_RDWR)


def _forget() -> None:
    if dist.is_initialized():
        with contextlib.suppress(RuntimeError):  # of connections that are gone
            dist.destroy_process_group()


def _sockets() -> dict[int, str]:
    """All sockets of this process: descriptor -> its identity."""
    found = {int(name): _link(int(name)) for name in os.listdir(_SOCKETS)}
    return {number: link for number, link in found.items() if link.startswith("socket:")}


def _link(number: int) -> str:
    try:
        return os.readlink(f"{_SOCKETS}/{number}")
    except OSError:
        return ""
