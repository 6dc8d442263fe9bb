"""Without it tokens could be trained on twice or never, and large ids be cut to 16 bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from trainctl.core.errors import DataError
from trainctl.parallel.data.dataset import TokenDataset
from trainctl.parallel.data.rows import Windows


def _dataset(ids: NDArray[np.generic], *, context: int, name: str) -> TokenDataset:
    rows = Windows(ids, context=context, keep_rest=False)
    expected = f"at least {context + 1} tokens"
    return TokenDataset(rows, context=context, name=name, expected=expected, found=str(len(ids)))


def test_windows_cover_the_tokens_once() -> None:
    dataset = _dataset(np.arange(14, dtype="<u2"), context=4, name="numbers")
    assert dataset.num_samples == 3
    batch = dataset.batch((0, 2, 1))
    assert batch.ids.tolist() == [[0, 1, 2, 3], [8, 9, 10, 11], [4, 5, 6, 7]]
    assert batch.targets.tolist() == [[1, 2, 3, 4], [9, 10, 11, 12], [5, 6, 7, 8]]
    assert batch.ids.dtype is batch.targets.dtype is torch.int64
    assert batch.num_targets == 12
    assert batch.documents is None


def test_ids_over_uint16_survive() -> None:
    dataset = _dataset(np.array([70000, 1, 2], dtype="<u4"), context=2, name="numbers")
    assert dataset.batch((0,)).targets.tolist() == [[1, 2]]
    assert dataset.batch((0,)).ids.tolist() == [[70000, 1]]


@pytest.mark.parametrize("count", [0, 1, 4])
def test_too_few_tokens_are_an_error_with_numbers(count: int) -> None:
    with pytest.raises(DataError, match=rf"at least 5 tokens in the held-out text, found {count}"):
        _dataset(np.zeros(count, dtype="<u2"), context=4, name="the held-out text")


@pytest.mark.parametrize("sample_id", [-1, 3])
def test_a_sample_outside_is_refused(sample_id: int) -> None:
    with pytest.raises(IndexError, match=r"0\.\.2"):
        _dataset(np.arange(14, dtype="<u2"), context=4, name="numbers").batch((sample_id,))
