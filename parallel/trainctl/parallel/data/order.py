"""In which order a data set wants its samples."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from trainctl.core.records.train_spec import BatchSpec
from trainctl.parallel.plan.sample_order import Order, SampleOrder


@runtime_checkable
class Ordered(Protocol):
    """Samples that have an order of their own: a mixture, or samples that are cheap to read together."""

    def order(self, *, seed: int, batch: BatchSpec) -> Order:
        """A pure function of position, seed and batch; the same on all ranks."""
        ...


def order_of(samples: object, *, count: int, seed: int, batch: BatchSpec) -> Order:
    """The order that ``samples`` want, or a permutation of ``0..count - 1`` per epoch."""
    return samples.order(seed=seed, batch=batch) if isinstance(samples, Ordered) else SampleOrder(count, seed)
