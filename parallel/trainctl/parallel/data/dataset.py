"""Windows of tokens as training samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trainctl.core.errors import DataError
from trainctl.parallel.data.batch import Batch, whole_rows


class TextDataset:
    """A stream of tokens cut into windows of ``context`` inputs and, shifted by one, as many targets.

    Inputs of neighbouring windows do not overlap; the last target of one is the first input of the next. A remainder
    shorter than a window is left out.

    Shape suffixes: B batch, S ``context + 1`` tokens.

    Args:
        tokens: ids, shape (tokens,), any unsigned integer type; a memory map stays on disk until read.
        context: targets of one sample.
        name: what the tokens are, for messages.

    Raises:
        DataError: there are too few tokens for one window.
    """

    def __init__(self, tokens: NDArray[np.generic], *, context: int, name: str) -> None:
        self._tokens = tokens
        self._context = context
        self._name = name
        self.num_samples = (len(tokens) - 1) // context if len(tokens) else 0
        if self.num_samples == 0:
            raise DataError(
                f"expected at least {context + 1} tokens (spec.train.model.context {context} and one more) in {name}, "
                f"found {len(tokens)}",
                hint="give more text, or a smaller spec.train.model.context",
            )

    def batch(self, sample_ids: Sequence[int]) -> Batch:
        """The samples 0 <= id < ``num_samples`` as full rows, in fresh memory."""
        rows_BS = np.empty((len(sample_ids), self._context + 1), dtype=np.int64)
        for row_S, sample_id in zip(rows_BS, sample_ids, strict=True):
            if not 0 <= sample_id < self.num_samples:
                raise IndexError(f"expected a sample of {self._name} in 0..{self.num_samples - 1}, found {sample_id}")
            start = sample_id * self._context
            row_S[:] = self._tokens[start : start + self._context + 1]
        return whole_rows(rows_BS)
