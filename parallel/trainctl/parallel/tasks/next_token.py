"""The training objective of models of text."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from trainctl.parallel.data.batch import IGNORED, Batch


class NextTokenLoss:
    """Cross-entropy of the next token, summed, in float32 (float64 for a float64 model).

    Shape suffixes: B batch, T context, V vocabulary.

    Args:
        logits: of a batch on the device, (B, T, V).
        device: where the model is.
        bfloat16: whether the model computes under bfloat16 autocast.
    """

    def __init__(self, logits: Callable[[Batch], Tensor], device: torch.device, *, bfloat16: bool) -> None:
        self._logits = logits
        self._device = device
        self._bfloat16 = bfloat16

    def __call__(self, batch: Batch) -> tuple[Tensor, int]:
        """Summed loss and number of targets."""
        batch = batch.to(self._device)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bfloat16):
            logits_BTV = self._logits(batch)
        if logits_BTV.dtype is torch.bfloat16:
            logits_BTV = logits_BTV.float()
        loss_sum = functional.cross_entropy(
            logits_BTV.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORED, reduction="sum"
        )
        return loss_sum, batch.num_targets
