from __future__ import annotations

import numpy as np
import pytest
import torch

from trainctl.core.errors import DataError
from trainctl.parallel.data.dataset import TextDataset


def test_windows_cover_the_tokens_once() -> None:
    dataset = TextDataset(np.arange(14, dtype="<u2"), context=4, name="numbers")
    assert dataset.num_samples == 3
    batch = dataset.batch((0, 2, 1))
    assert batch.tolist() == [[0, 1, 2, 3, 4], [8, 9, 10, 11, 12], [4, 5, 6, 7, 8]]
    assert batch.dtype is torch.int64
    assert batch.is_contiguous()
    assert torch.equal(dataset.sample(2), batch[1])


def test_ids_over_uint16_survive() -> None:
    dataset = TextDataset(np.array([70000, 1, 2], dtype="<u4"), context=2, name="numbers")
    assert dataset.sample(0).tolist() == [70000, 1, 2]


@pytest.mark.parametrize("count", [0, 1, 4])
def test_too_few_tokens_are_an_error_with_numbers(count: int) -> None:
    with pytest.raises(DataError, match=rf"at least 5 tokens .* in the held-out text, found {count}"):
        TextDataset(np.zeros(count, dtype="<u2"), context=4, name="the held-out text")


@pytest.mark.parametrize("sample_id", [-1, 3])
def test_a_sample_outside_is_refused(sample_id: int) -> None:
    with pytest.raises(IndexError, match=r"0\.\.2"):
        TextDataset(np.arange(14, dtype="<u2"), context=4, name="numbers").sample(sample_id)
