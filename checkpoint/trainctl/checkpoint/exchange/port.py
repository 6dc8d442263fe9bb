"""The exchange port: messages from rank to rank, which are polled. Groups of ``trainctl.parallel`` are such."""

from __future__ import annotations

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


class Exchange(Protocol):
    """Ranks that can send to each other.

    Attributes:
        rank: of this process.
        size: number of ranks.
        device: where messages must lie.
    """

    rank: int
    size: int
    device: torch.device

    def send(self, buffer: Tensor, destination: int, tag: int) -> Work:
        """Sends ``buffer`` to one rank; no other message from here to there has this ``tag``."""
        ...

    def receive(self, buffer: Tensor, source: int, tag: int) -> Work:
        """Receives what ``source`` sends with ``tag``."""
        ...
