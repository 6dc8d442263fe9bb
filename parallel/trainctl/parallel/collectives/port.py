"""The collectives port: operations are polled, never waited for in the kernel, and groups can be abandoned.

A thread that trains must be able to leave a collective whose peer died or froze. So every operation returns ``Work`` at
once, and ``Group.abandon`` leaves everything in flight behind: the buffers stay allocated until the operations ended by
themselves, because a peer that wakes up later may still complete them and write.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Work(Protocol):
    """Something in flight."""

    def done(self) -> bool:
        """Whether it ended, well or badly; never waits."""
        ...

    def done_within(self, timeout_s: float) -> bool:
        """Whether it ended, after waiting for that for at most ``timeout_s``."""
        ...

    def error(self) -> str:
        """Once done: why it failed, or an empty string."""
        ...


class Group(Protocol):
    """The ranks of one generation. All ranks start the same collectives in the same order.

    Attributes:
        rank: of this worker in the group.
        size: number of ranks.
        device: where buffers of its operations must lie.
    """

    rank: int
    size: int
    device: torch.device

    def all_reduce(self, buffer: Tensor) -> Work:
        """Sums ``buffer`` over all ranks, in place; all ranks end with the same bits."""
        ...

    def all_gather(self, output: Tensor, own: Tensor) -> Work:
        """Puts ``own`` of each rank, shape (n,), into ``output``, shape (size * n,), in rank order."""
        ...

    def send(self, buffer: Tensor, destination: int, tag: int) -> Work:
        """Sends ``buffer`` to one rank; ``tag`` is unique between the two ranks within the group."""
        ...

    def receive(self, buffer: Tensor, source: int, tag: int) -> Work:
        """Receives what ``source`` sends with ``tag``."""
        ...

    def abandon(self) -> None:
        """Leaves the group for good without waiting; what was in flight is quarantined and never read."""
        ...


class PendingGroup(Work, Protocol):
    """A group that is being built: building waits for the other ranks, so it is polled, too."""

    def group(self) -> Group:
        """The group; only when done without error."""
        ...

    def abandon(self) -> None:
        """Forgets it; if it comes to be after all, it is quarantined."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendezvous:
    """Where and as whom to meet.

    Attributes:
        store_address: ``host:port`` of the collective store; not used by a single rank.
        prefix: unique per job, island, generation and try.
        rank: own rank.
        size: ranks expected.
        address: host that the other ranks reach this one at.
        timeout_s: after which the transport itself gives an operation up.
    """

    store_address: str
    prefix: str
    rank: int
    size: int
    address: str
    timeout_s: float


class Collectives(Protocol):
    """A maker of groups."""

    def connect(self, rendezvous: Rendezvous) -> PendingGroup:
        """Starts to build a group; returns at once."""
        ...
