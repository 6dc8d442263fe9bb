"""The optimizer of a job file: parameter groups in an order that depends on the model alone."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

# AdamW's constructor does so, which takes a second: here the fork server does it for all workers.
import torch._dynamo  # pyright: ignore[reportUnusedImport]
from torch import nn

from trainctl.core.errors import Problem, SpecError
from trainctl.core.records.train_spec import OptimizerSpec
from trainctl.parallel.plan.optimizer_rules import PATH, TORCH_OPTIMIZERS, optimizer_problems
from trainctl.parallel.user_callable import load_callable

_FUSED = ("adam", "adamw")
_FUSED_DEVICES = ("cpu", "cuda")


def build_optimizer(model: nn.Module, spec: OptimizerSpec) -> torch.optim.Optimizer:
    """The optimizer as the spec says; matrices decay, vectors (norms and biases) do not.

    Embeddings are matrices and decay, too: with tied weights the embedding *is* the output matrix, so the rule does not
    change with ``tieEmbeddings``. Each group carries ``param_names``, the fully qualified names in the model's order.
    The learning rate set here is only a start: the vote's outcome sets it in every step.

    Raises:
        SpecError: there is no such optimizer, or it does not accept these options or this model.
    """
    if problems := optimizer_problems(spec):
        raise SpecError(problems, source="optimizer")
    torchs_own = TORCH_OPTIMIZERS.get(spec.name)
    make: Callable[..., Any] = (
        getattr(torch.optim, torchs_own) if torchs_own else load_callable(spec.name, field=f"{PATH}.name")
    )
    known, free = _keywords(make)
    if unknown := [] if free else sorted(set(spec.options) - set(known)):
        raise SpecError(tuple(_unknown(spec.name, option, known) for option in unknown), source="optimizer")
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    groups = _groups(trained, spec.weight_decay if free or "weight_decay" in known else None)
    if not torchs_own:  # one that looks at its parameters itself may not know named ones
        groups = [{**group, "params": [parameter for _, parameter in group["params"]]} for group in groups]
    options = {"lr": spec.lr, **_adams(spec, known), **spec.options}
    if spec.name in _FUSED and not options.get("foreach"):
        options.setdefault("fused", all(parameter.device.type in _FUSED_DEVICES for _, parameter in trained))
    try:
        optimizer = make(groups, **options)
    except (TypeError, ValueError) as error:
        raise _wrong("options", f"{spec.name} refuses these options, or this model: {error}") from error
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise _wrong("name", f"expected {spec.name} to make a torch.optim.Optimizer, found {type(optimizer).__name__}")
    return optimizer


def _groups(trained: Iterable[tuple[str, nn.Parameter]], weight_decay: float | None) -> list[dict[str, Any]]:
    """Matrices and vectors; all in one group where nothing decays. None: the optimizer has no weight decay."""
    named = list(trained)
    if weight_decay is None:
        return [{"params": named}]
    groups = [
        {"params": [item for item in named if item[1].dim() > 1], "weight_decay": weight_decay},
        {"params": [item for item in named if item[1].dim() <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _keywords(make: Callable[..., Any]) -> tuple[tuple[str, ...], bool]:
    """Names of the keyword arguments after the parameters, and whether any other is taken, too."""
    parameters = list(inspect.signature(make).parameters.values())[1:]
    return tuple(p.name for p in parameters), any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)


def _adams(spec: OptimizerSpec, known: Iterable[str]) -> Mapping[str, Any]:
    """``betas`` and ``eps`` for an optimizer that has both kinds of names: one of the Adam family."""
    if "betas" not in known:
        return {}
    return {name: value for name, value in (("betas", tuple(spec.betas)), ("eps", spec.eps)) if name in known}


def _unknown(name: str, option: str, known: Iterable[str]) -> Problem:
    close = difflib.get_close_matches(option, known, n=1)
    advice = f'did you mean "{close[0]}"?' if close else f"known here: {', '.join(sorted(known))}"
    return Problem(path=f"{PATH}.options.{option}", message=f"{name} has no such option ({advice})")


def _wrong(field: str, message: str) -> SpecError:
    return SpecError((Problem(path=f"{PATH}.{field}", message=message),), source="optimizer")
