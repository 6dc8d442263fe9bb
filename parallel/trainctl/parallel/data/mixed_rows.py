"""Rows of several sources as one: ids of a source lie behind those of the sources before it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from trainctl.core.records.train_spec import BatchSpec
from trainctl.parallel.data.order import order_of
from trainctl.parallel.data.rows import Ids, Rows
from trainctl.parallel.plan.mixture import MixtureOrder
from trainctl.parallel.plan.randomness import derive_seed
from trainctl.parallel.plan.sample_order import Order


class MixedRows:
    """Implements ``Rows`` and ``Ordered`` for a weighted mixture.

    Args:
        parts: rows of each source.
        weights: their shares.
    """

    def __init__(self, parts: Sequence[Rows], weights: Sequence[float]) -> None:
        self._parts = parts
        self._weights = weights
        self._stops = list(accumulate(part.count for part in parts))
        self.count = self._stops[-1]

    def row(self, number: int) -> Sequence[Ids]:
        """See ``Rows``."""
        source = bisect_right(self._stops, number)
        return self._parts[source].row(number - (self._stops[source - 1] if source else 0))

    def order(self, *, seed: int, batch: BatchSpec) -> Order:
        """Sources by weight; each goes through epochs of its own, with a seed of its own."""
        orders = [
            order_of(part, count=part.count, seed=derive_seed(seed, source), batch=batch)
            for source, part in enumerate(self._parts)
        ]
        return MixtureOrder.of(orders, [part.count for part in self._parts], self._weights)


class AlternatingRows:
    """Held-out rows of a mixture: row n is what stands at position n of it, the sources' rows being in order.

    There are as many as every source can give its share of.

    Args:
        parts: rows of each source, none of them empty.
        weights: their shares.
    """

    def __init__(self, parts: Sequence[Rows], weights: Sequence[float]) -> None:
        self._parts = parts
        self._mixture = MixtureOrder.of([], [part.count for part in parts], weights)
        self.count = self._mixture.longest_prefix()

    def row(self, number: int) -> Sequence[Ids]:
        """See ``Rows``."""
        source, nth = self._mixture.source(number)
        return self._parts[source].row(nth)
