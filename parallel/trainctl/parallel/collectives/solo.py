"""A world of one: the same code path without any communication."""

from __future__ import annotations

import torch
from torch import Tensor

from trainctl.checkpoint.exchange.port import Work
from trainctl.core.errors import InternalError
from trainctl.parallel.collectives.port import Group, Rendezvous


class DoneWork:
    """Work that was done when it was made."""

    def done(self) -> bool:
        """Always."""
        return True

    def done_within(self, timeout_s: float) -> bool:
        """At once."""
        return True

    def error(self) -> str:
        """None."""
        return ""


class SoloGroup:
    """Implements ``Group`` for one rank."""

    rank = 0
    size = 1

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def all_reduce(self, buffer: Tensor) -> Work:
        """The sum of one."""
        return DoneWork()

    def all_gather(self, output: Tensor, own: Tensor) -> Work:
        """A copy."""
        output.copy_(own)
        return DoneWork()

    def send(self, buffer: Tensor, destination: int, tag: int) -> Work:
        """There is nobody to send to.

        Raises:
            InternalError: always.
        """
        raise InternalError(f"a world of one has no rank {destination} to send to")

    def receive(self, buffer: Tensor, source: int, tag: int) -> Work:
        """There is nobody to receive from.

        Raises:
            InternalError: always.
        """
        raise InternalError(f"a world of one has no rank {source} to receive from")

    def abandon(self) -> None:
        """Nothing is in flight."""


class SoloCollectives:
    """Implements ``Collectives`` for one rank."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def connect(self, rendezvous: Rendezvous) -> SoloPending:
        """The group is there at once.

        Raises:
            InternalError: more than one rank is expected.
        """
        if rendezvous.size != 1:
            raise InternalError(f"expected a world of one, found {rendezvous.size} ranks")
        return SoloPending(SoloGroup(self._device))


class SoloPending(DoneWork):
    """Implements ``PendingGroup``."""

    def __init__(self, group: Group) -> None:
        self._group = group

    def group(self) -> Group:
        """The group."""
        return self._group

    def abandon(self) -> None:
        """Nothing to forget."""
