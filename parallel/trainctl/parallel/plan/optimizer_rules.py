"""What may stand in ``spec.train.optimizer``; without torch, so that a submission is checked where none is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from trainctl.core.errors import Problem
from trainctl.core.import_paths import is_import_path
from trainctl.core.records.train_spec import OptimizerSpec

PATH = "spec.train.optimizer"

TORCH_OPTIMIZERS: Mapping[str, str] = MappingProxyType(
    {
        "adadelta": "Adadelta",
        "adafactor": "Adafactor",
        "adagrad": "Adagrad",
        "adam": "Adam",
        "adamax": "Adamax",
        "adamw": "AdamW",
        "asgd": "ASGD",
        "muon": "Muon",
        "nadam": "NAdam",
        "radam": "RAdam",
        "rmsprop": "RMSprop",
        "rprop": "Rprop",
        "sgd": "SGD",
    }
)
"""Name in the job file -> class in ``torch.optim``."""

REFUSED: Mapping[str, str] = MappingProxyType(
    {
        "lbfgs": "it evaluates the loss several times in one step, between which nobody could be replaced",
        "sparseadam": "it works with sparse gradients, and those of a step are summed over the workers as dense ones",
    }
)
"""Optimizers of torch that cannot be carried out, and why."""

ADAM_FAMILY = frozenset({"adam", "adamax", "adamw", "nadam", "radam"})
"""Those that ``betas`` and ``eps`` are meant for."""

_WITHOUT_WEIGHT_DECAY = frozenset({"rprop"})
_FIELDS: Mapping[str, str] = {"lr": "lr", "betas": "betas", "weight_decay": "weightDecay"}


def optimizer_problems(spec: OptimizerSpec) -> tuple[Problem, ...]:
    """Everything wrong with the choice of the optimizer; ranges of its numbers are checked elsewhere."""
    return tuple(Problem(path=f"{PATH}.{field}", message=message) for field, message in _findings(spec))


def _findings(spec: OptimizerSpec) -> Iterator[tuple[str, str]]:
    if spec.name in REFUSED:
        yield "name", f"{spec.name} is not supported: {REFUSED[spec.name]}"
    elif spec.name not in TORCH_OPTIMIZERS and not is_import_path(spec.name):
        yield "name", f'expected {", ".join(TORCH_OPTIMIZERS)} or module:Class, found "{spec.name[:80]}"'
    adam = spec.name in ADAM_FAMILY
    for option in spec.options:
        field = "eps" if option == "eps" and adam else _FIELDS.get(option)
        if option == "params":
            yield f"options.{option}", "is what the model says; leave it out"
        elif field is not None:
            yield f"options.{option}", f"has a field of its own: {PATH}.{field}"
    if spec.name in TORCH_OPTIMIZERS:
        yield from _unused(spec, adam=adam)


def _unused(spec: OptimizerSpec, *, adam: bool) -> Iterator[tuple[str, str]]:
    """Fields that were written, but mean nothing to this optimizer."""
    default = OptimizerSpec()
    if not adam and spec.betas != default.betas:
        yield "betas", f"{spec.name} has none; leave it out"
    if not adam and spec.eps != default.eps:
        yield "eps", f"is of the Adam family only; if {spec.name} has one, write it into {PATH}.options"
    if spec.name in _WITHOUT_WEIGHT_DECAY and spec.weight_decay not in (0.0, default.weight_decay):
        yield "weightDecay", f"{spec.name} has none; leave it out"
