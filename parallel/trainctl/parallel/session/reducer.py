"""Sums the gradients of all ranks, in place: what came back whole is the retained gradient, without a copy."""

from __future__ import annotations

import torch

from trainctl.parallel.collectives.port import Group
from trainctl.parallel.collectives.wait import Waiter
from trainctl.parallel.replica.gradients import Gradients

BUCKET_BYTES = 32 << 20


class GradientReducer:
    """The reduction over one group.

    The memory of a collective that did not end may be written to long after its group was abandoned. So once a
    reduction fails anywhere, all of the gradient memory is given up to it, and the gradients live in new memory.

    Args:
        gradients: what is reduced, in place.
        group: over whom.
        bucket_bytes: size of one all-reduce.
    """

    def __init__(self, gradients: Gradients, group: Group, *, bucket_bytes: int = BUCKET_BYTES) -> None:
        self._gradients = gradients
        self._group = group
        self._bucket_bytes = bucket_bytes

    def reduce(self, waiter: Waiter) -> None:
        """Starts all buckets at once, and returns when all are summed.

        Raises:
            Interrupted, CollectiveError: as ``Waiter.wait``; the gradients are then zero, in new memory.
        """
        if self._group.size == 1:
            return
        try:
            works = [self._group.all_reduce(bucket) for bucket in self._buckets()]
            for work in works:
                waiter.wait(work, "the reduction of the gradients")
        except BaseException:
            self._gradients.renew()
            raise

    def _buckets(self) -> list[torch.Tensor]:
        buckets: list[torch.Tensor] = []
        for buffer in self._gradients.buffers:
            buckets += torch.split(buffer.tensor, max(1, self._bucket_bytes // buffer.tensor.element_size()))
        return buckets
