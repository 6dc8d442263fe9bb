"""The collectives port on gloo, the transport for CPUs.

Seen with torch 2.13: the constructor of a group waits for all ranks in C++, up to the store's time-out; a send or
receive only counts as completed after somebody called ``wait``; a frozen peer fails an operation only at the group's
time-out, and ``abort`` does not end it. Hence a thread per construction, a thread per direction and peer of messages,
and a quarantine. Groups are made directly: survivors could not rebuild torch's default process group.
"""

from __future__ import annotations

import threading
from collections import deque
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor
from torch._C._distributed_c10d import PrefixStore, TCPStore
from torch.distributed import ProcessGroupGloo

from trainctl.checkpoint.exchange.port import Work
from trainctl.checkpoint.exchange.watched import MessageWork, Watchers, first_line
from trainctl.core.errors import CollectiveError, InternalError
from trainctl.parallel.collectives.port import Group, PendingGroup, Rendezvous
from trainctl.parallel.collectives.quarantine import Quarantine
from trainctl.parallel.collectives.solo import SoloGroup, SoloPending
from trainctl.parallel.collectives.torch_work import CollectiveWork, started

_GLOO_THREADS = 2
_FIRST_TAG = 1 << 20
"""Tags of collectives count up from 0 inside gloo; ours start where they never get."""


class _Parts:
    """What a group consists of; abandoned as a whole."""

    def __init__(self, process_group: Any, store: TCPStore) -> None:
        self.process_group = process_group
        self.store = store
        self.in_flight: deque[Work] = deque()
        self.watchers = Watchers()

    def ended(self) -> bool:
        return all(work.done() for work in self.in_flight)


class GlooGroup:
    """Implements ``Group``."""

    def __init__(self, parts: _Parts, rendezvous: Rendezvous, quarantine: Quarantine) -> None:
        self.rank = rendezvous.rank
        self.size = rendezvous.size
        self.device = torch.device("cpu")
        self._parts: _Parts | None = parts
        self._quarantine = quarantine

    def all_reduce(self, buffer: Tensor) -> Work:
        """See ``Group``."""
        parts = self._alive()
        return self._started(parts, CollectiveWork(started(parts.process_group.allreduce, [buffer]), (buffer,)))

    def all_gather(self, output: Tensor, own: Tensor) -> Work:
        """See ``Group``."""
        parts = self._alive()
        work = started(parts.process_group._allgather_base, output, own)
        return self._started(parts, CollectiveWork(work, (output, own)))

    def send(self, buffer: Tensor, destination: int, tag: int) -> Work:
        """See ``Group``."""
        parts = self._alive()
        work = started(parts.process_group.send, [buffer], destination, _FIRST_TAG + tag)
        return self._watched(parts, "send", destination, MessageWork(work, buffer))

    def receive(self, buffer: Tensor, source: int, tag: int) -> Work:
        """See ``Group``."""
        parts = self._alive()
        work = started(parts.process_group.recv, [buffer], source, _FIRST_TAG + tag)
        return self._watched(parts, "receive", source, MessageWork(work, buffer))

    def abandon(self) -> None:
        """See ``Group``."""
        parts, self._parts = self._parts, None
        if parts is not None:
            parts.watchers.stop()
            self._quarantine.admit(parts)

    def _alive(self) -> _Parts:
        if self._parts is None:
            raise InternalError("an abandoned group was used")
        return self._parts

    def _started(self, parts: _Parts, work: Work) -> Work:
        while parts.in_flight and parts.in_flight[0].done():
            parts.in_flight.popleft()
        parts.in_flight.append(work)
        return work

    def _watched(self, parts: _Parts, way: str, peer: int, work: MessageWork) -> Work:
        parts.watchers.add(way, peer, work)
        return self._started(parts, work)


class GlooPending:
    """Implements ``PendingGroup``: the constructor runs in a thread of its own."""

    def __init__(self, rendezvous: Rendezvous, quarantine: Quarantine) -> None:
        self._rendezvous = rendezvous
        self._quarantine = quarantine
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._group: GlooGroup | None = None
        self._error = ""
        self._abandoned = False
        threading.Thread(target=self._build, name="gloo-connect", daemon=True).start()

    def done(self) -> bool:
        """See ``Work``."""
        return self._ended.is_set()

    def done_within(self, timeout_s: float) -> bool:
        """See ``Work``."""
        return self._ended.wait(timeout_s)

    def error(self) -> str:
        """See ``Work``; names the ranks that did not come."""
        return self._error

    def group(self) -> Group:
        """See ``PendingGroup``."""
        if self._group is None:
            raise InternalError(f"the group is not there: {self._error or 'still being built'}")
        return self._group

    def abandon(self) -> None:
        """See ``PendingGroup``."""
        with self._lock:
            self._abandoned = True
            group = self._group
        if group is not None:
            group.abandon()

    def _build(self) -> None:
        try:
            group = _build_group(self._rendezvous, self._quarantine)
        except (RuntimeError, CollectiveError) as error:
            self._error = first_line(error)
            self._ended.set()
            return
        with self._lock:
            self._group = group
            abandoned = self._abandoned
        self._ended.set()
        if abandoned:
            group.abandon()


class GlooCollectives:
    """Implements ``Collectives``; one per process, so that its quarantine outlives every group."""

    def __init__(self) -> None:
        self.quarantine = Quarantine()

    def connect(self, rendezvous: Rendezvous) -> PendingGroup:
        """See ``Collectives``; a single rank needs no process group at all."""
        if rendezvous.size == 1:
            return SoloPending(SoloGroup(torch.device("cpu")))
        return GlooPending(rendezvous, self.quarantine)


def _open_store(address: str, timeout: timedelta) -> TCPStore:
    host, _, port = address.rpartition(":")
    try:
        return TCPStore(host, int(port), None, False, timeout, False)
    except RuntimeError as error:
        waited_s = timeout.total_seconds()
        raise CollectiveError(
            f"the collective store at {address} did not answer for {waited_s:g} s ({first_line(error)})"
        ) from error


def _build_group(rendezvous: Rendezvous, quarantine: Quarantine) -> GlooGroup:
    timeout = timedelta(seconds=rendezvous.timeout_s)
    store = _open_store(rendezvous.store_address, timeout)
    scoped = PrefixStore(rendezvous.prefix, store)
    scoped.set(f"present/{rendezvous.rank}", "1")
    gloo: Any = ProcessGroupGloo  # torch's stubs leave most of it out
    options = gloo._Options()
    options._devices = [gloo.create_device(hostname=rendezvous.address)]
    options._timeout = timeout
    options._threads = _GLOO_THREADS
    try:
        process_group = gloo(scoped, rendezvous.rank, rendezvous.size, options)
    except RuntimeError as error:
        absent = [str(rank) for rank in range(rendezvous.size) if not scoped.check([f"present/{rank}"])]
        who = f"rank {', '.join(absent)} did not come" if absent else "all ranks came, but a connection failed"
        raise CollectiveError(f"{who} ({first_line(error)})") from error
    return GlooGroup(_Parts(process_group, store), rendezvous, quarantine)
