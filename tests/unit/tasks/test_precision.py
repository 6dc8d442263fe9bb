"""In which precision a model computes, and that sums are not made in it.

Without it bfloat16 could lose small gradients in its sums.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from trainctl.core.records.train_spec import TrainSpec
from trainctl.parallel.data.batch import Batch, packed_rows
from trainctl.parallel.tasks.next_token import NextTokenLoss
from trainctl.parallel.tasks.task import TaskContext

VOCAB, CONTEXT = 11, 8


def rows() -> Batch:
    draw = np.random.default_rng(0)
    return packed_rows([[draw.integers(0, VOCAB, CONTEXT + 1)] for _ in range(3)], context=CONTEXT)


@pytest.mark.parametrize("bfloat16", [False, True])
def test_the_model_computes_under_autocast_and_the_loss_does_not(*, bfloat16: bool) -> None:
    torch.manual_seed(0)
    embed, head = nn.Embedding(VOCAB, 16), nn.Linear(16, VOCAB)
    seen: list[torch.dtype] = []
    head.register_forward_hook(lambda _, __, output: seen.append(output.dtype))

    def logits(batch: Batch) -> torch.Tensor:
        found: torch.Tensor = head(embed(batch.ids))
        return found

    loss, targets = NextTokenLoss(logits, torch.device("cpu"), bfloat16=bfloat16)(rows())
    loss.backward()  # type: ignore[no-untyped-call]
    assert seen == [torch.bfloat16 if bfloat16 else torch.float32]
    assert loss.dtype is torch.float32
    assert targets == 3 * CONTEXT
    assert head.weight.grad is not None
    assert head.weight.grad.dtype is torch.float32


@pytest.mark.parametrize(
    ("precision", "device", "supported", "expected"),
    [
        ("auto", "cuda", True, True),
        ("auto", "cuda", False, False),
        ("auto", "cpu", True, False),
        ("float32", "cuda", True, False),
        ("float64", "cuda", True, False),
    ],
)
def test_bfloat16_is_chosen_where_the_device_has_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, precision: str, device: str, supported: bool, expected: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: supported)
    context = TaskContext(spec=TrainSpec(precision=precision), device=torch.device(device), cache_dir=tmp_path)
    assert context.bfloat16 is expected
