"""Code of a user's own, for worker processes: a task, and an optimizer with state that is not all tensors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from trainctl.parallel.tasks.task import TaskContext, TaskParts


class Rows:
    num_samples = 60

    def batch(self, sample_ids: Sequence[int]) -> torch.Tensor:
        return torch.stack([torch.randn(6, generator=torch.Generator().manual_seed(i)) for i in sample_ids])


class Signs(torch.optim.Optimizer):
    """Signed momentum: counts in its state and in its groups, and rounds at random."""

    def __init__(self, params: Iterable[Any], lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr, "total": 0.0})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            group["total"] += group["lr"] / 3
            for parameter in group["params"]:
                state = self.state[parameter]
                if not state:
                    state.update(count=0, mean=parameter.grad.clone())
                state["count"] += 1
                state["mean"].lerp_(parameter.grad, 1 / state["count"])
                noise = torch.rand_like(parameter) * 0.01 * group["total"]
                parameter.data.add_(state["mean"].sign() + noise, alpha=-group["lr"] / state["count"])


def build(context: TaskContext) -> TaskParts:
    model = nn.Sequential(nn.Linear(6, 9), nn.BatchNorm1d(9, track_running_stats=False), nn.Tanh(), nn.Linear(9, 2))

    def loss(batch: torch.Tensor) -> tuple[torch.Tensor, int]:
        return (model(batch) - batch[:, :2].sin()).square().sum(), 2 * len(batch)

    return TaskParts(model=model, dataset=Rows(), loss=loss, artifacts={"width.txt": b"6"})
