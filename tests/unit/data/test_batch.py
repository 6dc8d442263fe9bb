"""Without it packed documents could see each other, and padding count in the loss."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from trainctl.core.records.train_spec import ModelSpec
from trainctl.parallel.data.batch import IGNORED, packed_rows
from trainctl.parallel.models.llama import Llama
from trainctl.parallel.tasks.llama import logits_of
from trainctl.parallel.tasks.next_token import NextTokenLoss


def test_documents_lie_side_by_side_and_the_rest_counts_for_nothing() -> None:
    batch = packed_rows([[np.array([1, 2, 3]), np.array([4, 5])], [np.array([6, 7])]], context=5, padding_id=9)
    assert batch.ids.tolist() == [[1, 2, 4, 9, 9], [6, 9, 9, 9, 9]]
    assert batch.targets.tolist() == [[2, 3, 5, IGNORED, IGNORED], [7, *[IGNORED] * 4]]
    assert batch.num_targets == 4
    assert batch.documents is not None
    assert batch.documents.tolist() == [[0, 0, 1, 2, 2], [0, 1, 1, 1, 1]]
    positions, mask = batch.positions(), batch.attention_mask()
    assert positions is not None
    assert mask is not None
    assert positions.tolist() == [[0, 1, 0, 0, 1], [0, 0, 1, 2, 3]]
    assert mask[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [0, 0, 1, 0, 0],
        [0, 0, 0, 1, 0],
        [0, 0, 0, 1, 1],
    ]


@pytest.mark.parametrize("kv_heads", [0, 2])
@pytest.mark.parametrize("seed", range(4))
def test_a_packed_document_has_the_loss_and_gradient_it_has_alone(seed: int, kv_heads: int) -> None:
    """In float64, for random documents: packing must change nothing but the order of additions."""
    drawn = random.Random(seed)
    context, vocab = drawn.randint(12, 40), 50
    rows = []
    for _ in range(3):
        row: list[NDArray[np.int64]] = []
        room = context
        while room >= 1 and len(row) < 5:
            length = drawn.randint(1, room)
            row.append(np.array([drawn.randrange(vocab) for _ in range(length + 1)]))
            room -= length
        rows.append(row)
    shape = ModelSpec(layers=2, hidden=32, heads=4, kv_heads=kv_heads, context=context)
    model = Llama(shape, vocab, seed=seed, dtype=torch.float64)
    loss = NextTokenLoss(logits_of(model), torch.device("cpu"), bfloat16=False)

    packed, targets = loss(packed_rows(rows, context=context))
    packed.backward()  # type: ignore[no-untyped-call]
    packed_gradients = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]

    model.zero_grad()
    alone = torch.zeros((), dtype=torch.float64)
    for document in (document for row in rows for document in row):
        logits = model(torch.from_numpy(document[None, :-1]))[0]
        alone = alone + torch.nn.functional.cross_entropy(logits, torch.from_numpy(document[1:]), reduction="sum")
    alone.backward()  # type: ignore[no-untyped-call]

    assert targets == sum(len(document) - 1 for row in rows for document in row)
    torch.testing.assert_close(packed, alone, rtol=1e-12, atol=0)
    for packed_gradient, parameter in zip(packed_gradients, model.parameters(), strict=True):
        torch.testing.assert_close(packed_gradient, parameter.grad, rtol=1e-9, atol=1e-12)


def test_a_row_of_padding_only_is_finite_and_counts_nothing() -> None:
    model = Llama(ModelSpec(layers=1, hidden=32, heads=4, context=8), 50, dtype=torch.float64)
    loss_sum, targets = NextTokenLoss(logits_of(model), torch.device("cpu"), bfloat16=False)(
        packed_rows([[]], context=8)
    )
    loss_sum.backward()  # type: ignore[no-untyped-call]
    assert targets == 0
    assert loss_sum.item() == 0.0
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
