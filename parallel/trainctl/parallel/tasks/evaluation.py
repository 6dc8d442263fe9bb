"""Held-out evaluation as numbered items, which a session deals to its ranks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainctl.core.records.train_spec import EvalSpec
from trainctl.parallel.tasks.task import Dataset, Loss


class Evaluation:
    """The first ``spec.sequences`` held-out samples (fewer, if there are fewer) in items of a few samples.

    The items do not depend on the world size, so neither does what is summed up.

    Args:
        spec: how many samples.
        model: put into eval mode while an item is computed.
        dataset: held-out samples.
        loss: of a batch.
        item_samples: samples of one item; at most.
    """

    def __init__(self, spec: EvalSpec, model: nn.Module, dataset: Dataset, loss: Loss, *, item_samples: int) -> None:
        count = min(spec.sequences, dataset.num_samples)
        self._items = [range(i, min(i + item_samples, count)) for i in range(0, count, item_samples)]
        self._model = model
        self._dataset = dataset
        self._loss = loss

    @property
    def num_items(self) -> int:
        """How many there are."""
        return len(self._items)

    @torch.no_grad()
    def __call__(self, item: int) -> tuple[Tensor, int]:
        """Summed loss and number of targets of one item; leaves the model as it was."""
        was_training = self._model.training
        self._model.eval()
        try:
            return self._loss(self._dataset.batch(self._items[item]))
        finally:
            self._model.train(was_training)
