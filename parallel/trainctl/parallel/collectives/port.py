"""The collectives port: operations are polled, never waited for in the kernel, and groups can be abandoned.

A thread that trains must be able to leave a collective whose peer died or froze. So every operation returns ``Work`` at
once, and ``Group.abandon`` leaves everything in flight behind: the buffers stay allocated until the operations ended by
themselves, because a peer that wakes up later may still complete them and write.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from trainctl.checkpoint.exchange.port import Exchange, Work


class Group(Exchange, Protocol):
    """The ranks of one generation, which send to each other as an ``Exchange`` and compute together.

    All ranks start the same collectives in the same order.
    """

    def all_reduce(self, buffer: Tensor) -> Work:
        """Sums ``buffer`` over all ranks, in place; all ranks end with the same bits."""
        ...

    def all_gather(self, output: Tensor, own: Tensor) -> Work:
        """Puts ``own`` of each rank, shape (n,), into ``output``, shape (size * n,), in rank order."""
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
