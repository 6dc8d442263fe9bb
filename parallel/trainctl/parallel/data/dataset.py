"""Rows of tokens as training samples."""

from __future__ import annotations

from collections.abc import Sequence

from trainctl.core.errors import DataError
from trainctl.core.records.train_spec import BatchSpec
from trainctl.parallel.data.batch import Batch
from trainctl.parallel.data.order import order_of
from trainctl.parallel.data.rows import Rows, to_batch
from trainctl.parallel.plan.sample_order import Order


class TokenDataset:
    """Rows of tokens by number.

    Args:
        rows: what there is.
        context: positions of a row.
        name: what the tokens are, for messages.
        expected: the least that one row takes, for messages.
        found: what there was, for messages.
        notice: what people should know of it; empty for nothing.

    Attributes:
        num_samples: rows.
        notice: as given.
        thread_safe: a thread may make batches while the loop computes: they depend on nothing but the ids.

    Raises:
        DataError: there is not one row.
    """

    thread_safe = True

    def __init__(
        self, rows: Rows, *, context: int, name: str, expected: str = "samples", found: str = "none", notice: str = ""
    ) -> None:
        self.notice = notice
        self._rows = rows
        self._context = context
        self._name = name
        self.num_samples = rows.count
        if self.num_samples == 0:
            raise DataError(
                f"expected {expected} in {name}, found {found}",
                hint="give more text, or a smaller spec.train.model.context",
            )

    def batch(self, sample_ids: Sequence[int]) -> Batch:
        """The samples 0 <= id < ``num_samples``, in fresh memory."""
        for sample_id in sample_ids:
            if not 0 <= sample_id < self.num_samples:
                raise IndexError(f"expected a sample of {self._name} in 0..{self.num_samples - 1}, found {sample_id}")
        return to_batch([self._rows.row(sample_id) for sample_id in sample_ids], context=self._context)

    def order(self, *, seed: int, batch: BatchSpec) -> Order:
        """See ``Ordered``."""
        return order_of(self._rows, count=self.num_samples, seed=seed, batch=batch)
