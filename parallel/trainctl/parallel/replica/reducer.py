"""Sums the gradients of all ranks, through buffers that may be lost to a collective that is abandoned."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trainctl.parallel.collectives.port import Group, Work
from trainctl.parallel.collectives.wait import Waiter
from trainctl.parallel.replica.gradients import FlatGradients

BUCKET_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class _Bucket:
    retained: Tensor
    communicated: Tensor


class GradientReducer:
    """The reduction over one group. Made anew for each generation: its buffers belong to the group's collectives.

    Args:
        gradients: what is reduced, in place.
        group: over whom.
        bucket_bytes: size of one all-reduce.
    """

    def __init__(self, gradients: FlatGradients, group: Group, *, bucket_bytes: int = BUCKET_BYTES) -> None:
        self._group = group
        self._buckets: list[_Bucket] = []
        if group.size == 1:
            return
        for buffer in gradients.buffers:
            length = max(1, bucket_bytes // buffer.tensor.element_size())
            for part in torch.split(buffer.tensor, length):
                self._buckets.append(_Bucket(part, torch.empty_like(part)))

    def reduce(self, waiter: Waiter) -> None:
        """Starts all buckets at once, and copies each back when it is done.

        Raises:
            Interrupted, CollectiveError: as ``Waiter.wait``; the gradients are then worthless.
        """
        works: list[Work] = []
        for bucket in self._buckets:
            bucket.communicated.copy_(bucket.retained)
            works.append(self._group.all_reduce(bucket.communicated))
        for bucket, work in zip(self._buckets, works, strict=True):
            waiter.wait(work, "the reduction of the gradients")
            bucket.retained.copy_(bucket.communicated)
