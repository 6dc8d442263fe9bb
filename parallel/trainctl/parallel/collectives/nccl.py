"""The collectives port on NCCL. *Unverified*: never run on a machine with several GPUs.

Differs from gloo in that a dead peer makes operations hang for ever, so abandoning aborts the communicator, in a helper
thread since that may hang, too. Point-to-point works are polled like collectives.
"""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor
from torch._C._distributed_c10d import PrefixStore, TCPStore

from trainctl.checkpoint.exchange.port import Work
from trainctl.core.errors import InternalError
from trainctl.parallel.collectives.port import PendingGroup, Rendezvous
from trainctl.parallel.collectives.quarantine import Quarantine
from trainctl.parallel.collectives.solo import SoloGroup, SoloPending
from trainctl.parallel.collectives.torch_work import CollectiveWork


class _Parts:
    def __init__(self, process_group: Any, store: TCPStore) -> None:
        self.process_group = process_group
        self.store = store
        self.in_flight: list[Work] = []

    def ended(self) -> bool:
        return all(work.done() for work in self.in_flight)


class NcclGroup:
    """Implements ``Group``."""

    def __init__(self, parts: _Parts, rendezvous: Rendezvous, device: torch.device, quarantine: Quarantine) -> None:
        self.rank = rendezvous.rank
        self.size = rendezvous.size
        self.device = device
        self._parts: _Parts | None = parts
        self._quarantine = quarantine

    def all_reduce(self, buffer: Tensor) -> Work:
        """See ``Group``."""
        parts = self._alive()
        return self._started(parts, parts.process_group.allreduce([buffer]), buffer)

    def all_gather(self, output: Tensor, own: Tensor) -> Work:
        """See ``Group``."""
        parts = self._alive()
        return self._started(parts, parts.process_group._allgather_base(output, own), output, own)

    def send(self, buffer: Tensor, destination: int, tag: int) -> Work:
        """See ``Group``; NCCL has no tags, the order of the messages between two ranks stands for them."""
        parts = self._alive()
        return self._started(parts, parts.process_group.send([buffer], destination, tag), buffer)

    def receive(self, buffer: Tensor, source: int, tag: int) -> Work:
        """See ``Group``."""
        parts = self._alive()
        return self._started(parts, parts.process_group.recv([buffer], source, tag), buffer)

    def abandon(self) -> None:
        """See ``Group``."""
        parts, self._parts = self._parts, None
        if parts is not None:
            threading.Thread(target=parts.process_group.abort, name="nccl-abort", daemon=True).start()
            self._quarantine.admit(parts)

    def _alive(self) -> _Parts:
        if self._parts is None:
            raise InternalError("an abandoned group was used")
        return self._parts

    def _started(self, parts: _Parts, work: Any, *buffers: Tensor) -> Work:
        parts.in_flight = [item for item in parts.in_flight if not item.done()]
        parts.in_flight.append(started := CollectiveWork(work, buffers))
        return started


class NcclCollectives:
    """Implements ``Collectives`` for one CUDA device per worker."""

    def __init__(self, device: torch.device) -> None:
        self.quarantine = Quarantine()
        self._device = device

    def connect(self, rendezvous: Rendezvous) -> PendingGroup:
        """See ``Collectives``. NCCL connects at the first collective, so only the store is waited for here."""
        if rendezvous.size == 1:
            return SoloPending(SoloGroup(self._device))
        from torch.distributed import ProcessGroupNCCL  # absent from CPU builds of torch

        host, _, port = rendezvous.store_address.rpartition(":")
        timeout = timedelta(seconds=rendezvous.timeout_s)
        store = TCPStore(host, int(port), None, False, timeout, False)
        options = ProcessGroupNCCL.Options()
        options._timeout = timeout
        scoped = PrefixStore(rendezvous.prefix, store)
        process_group = ProcessGroupNCCL(scoped, rendezvous.rank, rendezvous.size, options)
        group = NcclGroup(_Parts(process_group, store), rendezvous, self._device, self.quarantine)
        return SoloPending(group)
