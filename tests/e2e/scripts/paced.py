"""A task that trains next to nothing, slowly, until a file is there; then as fast as it can."""

import os
import time
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from trainctl.parallel.tasks.task import TaskContext, TaskParts

WIDTH = 4


class Paced:
    """Samples by number; each batch takes ``pause_s`` while ``gate`` does not exist."""

    num_samples = 100_000

    def __init__(self, gate: str, pause_s: float) -> None:
        self._gate = gate
        self._pause_s = pause_s

    def batch(self, sample_ids: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        if not os.path.exists(self._gate):
            time.sleep(self._pause_s)
        inputs = torch.tensor([[float((number * k) % 17) for k in range(1, WIDTH + 1)] for number in sample_ids]) / 17
        return inputs, inputs.sum(dim=1, keepdim=True)


def build(context: TaskContext) -> TaskParts:
    model = nn.Linear(WIDTH, 1)
    data = Paced(str(context.options["gate"]), float(context.options["pause_s"]))

    def loss(batch: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, int]:
        inputs, wanted = batch
        return functional.mse_loss(model(inputs), wanted, reduction="sum"), wanted.numel()

    return TaskParts(model=model, dataset=data, eval_dataset=data, loss=loss)
