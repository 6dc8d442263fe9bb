"""What the built-in loop needs to know of a thing that can be trained; a task of the user's own gives it, too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from trainctl.core.records.train_spec import TrainSpec

if TYPE_CHECKING:
    from trainctl.parallel.tasks.text import TextData


class Dataset(Protocol):
    """Samples by number: the order is the session's business.

    The same on every worker, and the same whenever it is asked: a batch is made again after a failure.
    """

    @property
    def num_samples(self) -> int:
        """How many there are."""
        ...

    def batch(self, sample_ids: Sequence[int]) -> Any:
        """The samples with these ids, each ``0 <= id < num_samples``, on the CPU, in whatever form the loss takes."""
        ...


class Loss(Protocol):
    """The training objective."""

    def __call__(self, batch: Any) -> tuple[Tensor, int]:
        """Summed loss (a scalar with its graph) and number of targets of what ``Dataset.batch`` gave.

        *Summed*, not averaged: the loop divides by the targets of the whole batch, wherever its parts were computed.
        """
        ...


class Evaluate(Protocol):
    """Held-out evaluation in numbered items, which are dealt to the workers."""

    @property
    def num_items(self) -> int:
        """How many there are."""
        ...

    def __call__(self, item: int) -> tuple[Tensor | float, int]:
        """Summed loss and number of targets of one item; leaves the model as it was."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskContext:
    """What a task is built from.

    Attributes:
        spec: ``spec.train`` of the job, with every default.
        device: where to compute.
        cache_dir: folder of the node that outlives the job; every worker of the node has the same.
    """

    spec: TrainSpec
    device: torch.device
    cache_dir: Path

    @property
    def options(self) -> Mapping[str, Any]:
        """``spec.train.options``: free values for a task of the user's own."""
        return self.spec.options

    @property
    def seed(self) -> int:
        """``spec.train.seed``. Torch's generators are seeded with it before a task is built, on all workers alike."""
        return self.spec.seed

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights: float64 for ``precision: float64``, else float32."""
        return torch.float64 if self.spec.precision == "float64" else torch.float32

    @property
    def bfloat16(self) -> bool:
        """Whether to compute under bfloat16 autocast: ``precision: auto`` where the device has it; no CPU does."""
        return self.spec.precision == "auto" and self.device.type == "cuda" and torch.cuda.is_bf16_supported()

    def autocast(self) -> AbstractContextManager[Any]:
        """Computes as ``spec.train.precision`` says."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16)

    def text(self) -> TextData:
        """The built-in data: ``spec.train.data`` through ``spec.train.tokenizer``.

        Raises:
            DataError: the data is missing or unusable.
        """
        from trainctl.parallel.tasks.text import open_text

        return open_text(self.spec, self.cache_dir)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskParts:
    """A task, built.

    Attributes:
        model: on its device, in its precision; the same on every rank. Its parameters and persistent buffers are what
            is saved, copied to replacements and exported.
        dataset: what is trained on.
        loss: of a batch, through ``model``.
        eval_dataset: held-out samples, evaluated with ``loss``; None for none.
        evaluation: evaluation of another kind, instead of ``eval_dataset``.
        optimizer: over the model's parameters, instead of that of ``spec.train.optimizer``; learning rate and clipping
            are the job file's all the same.
        artifacts: files that belong into a checkpoint beside the weights, by name; an export writes them.
        data_digest: equal on two workers if and only if they see the same samples; empty: their number is compared.
    """

    model: nn.Module
    dataset: Dataset
    loss: Loss
    eval_dataset: Dataset | None = None
    evaluation: Evaluate | None = None
    optimizer: torch.optim.Optimizer | None = None
    artifacts: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    data_digest: str = ""


class Task(Protocol):
    """A kind of training, chosen by ``spec.train.task``."""

    def build(self, context: TaskContext) -> TaskParts:
        """Makes everything ready to train.

        Raises:
            DataError: the data is missing or unusable.
            SpecError: the spec cannot be carried out.
        """
        ...
