"""The vote's one all-gather."""

from __future__ import annotations

from collections.abc import Callable

import torch

from trainctl.parallel.collectives.port import Group
from trainctl.parallel.collectives.wait import Waiter
from trainctl.parallel.plan.vote import VoteRecord, packed_size, unpack


class BallotBox:
    """Collects the records of a group; its buffers belong to the group's collectives.

    Args:
        group: who votes.
        num_groups: parameter groups of the optimizer.
        reach: fault points.
    """

    def __init__(self, group: Group, *, num_groups: int, reach: Callable[[str], None]) -> None:
        self._group = group
        self._reach = reach
        self._size = packed_size(num_groups)
        self._own = torch.empty(self._size, dtype=torch.uint8, device=group.device)
        self._all = torch.empty(group.size * self._size, dtype=torch.uint8, device=group.device)

    def collect(self, record: VoteRecord, waiter: Waiter) -> list[VoteRecord]:
        """The records of all ranks, in rank order.

        Raises:
            Interrupted, CollectiveError: as ``Waiter.wait``.
        """
        self._reach("vote.before")
        self._own.copy_(torch.frombuffer(bytearray(record.pack()), dtype=torch.uint8))
        work = self._group.all_gather(self._all, self._own)
        self._reach("vote.in")
        waiter.wait(work, f"the vote on step {record.step}")
        data = bytes(self._all.cpu().numpy())
        return [unpack(data[rank * self._size : (rank + 1) * self._size]) for rank in range(self._group.size)]
