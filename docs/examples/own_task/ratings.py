"""A task of one's own: a model that is no model of text learns a function from pairs of numbers."""

import torch
from torch import nn
from torch.nn import functional

from trainctl.parallel.tasks.task import TaskContext, TaskParts


class Pairs:
    """Samples by number: which ones make up a step is trainctl's business."""

    def __init__(self, num_samples: int, width: int, first: int = 0) -> None:
        self.num_samples = num_samples
        self.width = width
        self.first = first

    def batch(self, sample_ids):
        """Any form will do that the loss takes; the same ids always give the same batch."""
        rows = [self._row(self.first + number) for number in sample_ids]
        inputs = torch.stack(rows)
        return inputs, inputs.sin().sum(dim=1, keepdim=True)

    def _row(self, number):
        return torch.randn(self.width, generator=torch.Generator().manual_seed(number))


def build(context: TaskContext) -> TaskParts:
    """Called once in every worker, before the first step."""
    width = context.options.get("width", 8)
    model = nn.Sequential(nn.Linear(width, 64), nn.GELU(), nn.Linear(64, 1))  # torch is seeded with spec.train.seed
    model.to(context.device, context.dtype)

    def loss(batch):
        inputs, wanted = (tensor.to(context.device, context.dtype) for tensor in batch)
        with context.autocast():
            found = model(inputs)
        return functional.mse_loss(found.float(), wanted.float(), reduction="sum"), wanted.numel()

    return TaskParts(
        model=model,
        dataset=Pairs(10_000, width),
        eval_dataset=Pairs(200, width, first=10_000),
        loss=loss,
    )
