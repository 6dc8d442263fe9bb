"""What the built-in loop needs to know of a thing that can be trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from trainctl.core.errors import Problem
from trainctl.core.records.train_spec import TrainSpec
from trainctl.parallel.data.batch import Batch


class Dataset(Protocol):
    """Samples by number: the order is the session's business."""

    num_samples: int

    def batch(self, sample_ids: Sequence[int]) -> Batch:
        """The samples with these ids, stacked along the first dim, on the CPU."""


class Loss(Protocol):
    """The training objective."""

    def __call__(self, batch: Batch) -> tuple[Tensor, int]:
        """Summed loss (a scalar in nats, with its graph) and number of targets of what ``Dataset.batch`` gave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskParts:
    """A task, built.

    Attributes:
        model: on its device, in its precision; the same on every rank.
        dataset: what is trained on.
        eval_dataset: held-out samples; None if nothing is evaluated.
        loss: of a batch, through ``model``.
        artifacts: files that belong into a checkpoint beside the weights, by name.
        data_digest: equal on two workers if and only if they see the same samples.
    """

    model: nn.Module
    dataset: Dataset
    eval_dataset: Dataset | None
    loss: Loss
    artifacts: Mapping[str, bytes]
    data_digest: str


class Task(Protocol):
    """A kind of training, chosen by ``spec.train.task``."""

    def check(self, spec: TrainSpec) -> tuple[Problem, ...]:
        """What is wrong with the spec, found without touching data or devices."""

    def build(self, spec: TrainSpec, cache_dir: Path, device: torch.device) -> TaskParts:
        """Makes everything ready to train.

        Raises:
            DataError: the data is missing or unusable.
            SpecError: the spec cannot be carried out.
        """
