"""The one workload that every side of a benchmark trains: same model, batch, precision and threads."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from trainctl.core.records.train_spec import ModelSpec
from trainctl.parallel.models.llama import Llama

VOCABULARY = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Sizes of the benchmark job.

    Attributes:
        layers, hidden, heads, context: of the Llama.
        sequences: in the global batch.
        micro_batches: logical micro-batches the batch is dealt in.
        world_size: workers.
    """

    layers: int = 6
    hidden: int = 192
    heads: int = 3
    context: int = 128
    sequences: int = 16
    micro_batches: int = 4
    world_size: int = 4

    @property
    def tokens_per_step(self) -> int:
        return self.sequences * self.context

    def model_spec(self) -> ModelSpec:
        return ModelSpec(layers=self.layers, hidden=self.hidden, heads=self.heads, context=self.context)

    def build(self) -> tuple[nn.Module, torch.optim.Optimizer]:
        """The model and its fused AdamW."""
        torch.manual_seed(0)
        model = Llama(self.model_spec(), VOCABULARY)
        return model, torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)

    def batches(self, rank: int, world_size: int) -> Iterator[list[torch.Tensor]]:
        """For each step, this rank's micro-batches of token ids, shape (sequences per micro-batch, context + 1)."""
        rows = self.sequences // self.micro_batches
        own = self.micro_batches // world_size
        generator = torch.Generator().manual_seed(rank)
        while True:
            shape = (rows, self.context + 1)
            yield [torch.randint(0, VOCABULARY, shape, generator=generator) for _ in range(own)]

    def sizes(self) -> dict[str, int]:
        """For the last line of a benchmark."""
        return asdict(self)


def loss_of(model: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of the next token."""
    logits = model(tokens[:, :-1])
    return nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


class StepLog:
    """Commit times, one line a step, for the driver that measures from outside."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1)

    def committed(self, step: int) -> None:
        """Writes step and Unix time."""
        self._file.write(f"{step} {time.time():.6f}\n")
