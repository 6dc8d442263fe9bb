"""One step of a copy of an optimizer, with zero gradients: shows what state there will be, and whether all is seen."""

from __future__ import annotations

import copy
import inspect
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor

from trainctl.core.errors import PlanError
from trainctl.core.plain import is_list, is_mapping, is_tuple

PLAIN = (bool, int, float, str, type(None))
"""What may stand in an optimizer's state beside tensors."""

_TORCHS_OWN = frozenset(
    {"param_groups", "state", "defaults", "step", "_opt_called", "_need_device_dtype_check_for_fused"}
)
"""Attributes that every optimizer has; ``step`` is one where a scheduler counts the steps."""
_HOOKS = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")


def trained_parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """The parameters that an optimizer changes, in its order."""
    return [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]


def kept_of(optimizer: torch.optim.Optimizer, parameter: Tensor) -> dict[str, Any]:
    """What an optimizer keeps of a parameter now, by kind; empty where it keeps nothing."""
    return optimizer.state.get(parameter) or {}


def trial_step(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """The state of each of ``trained_parameters`` as one step would leave it, with worthless values.

    The optimizer, its parameters and their gradients stay as they are. For its time it takes memory for another copy
    of the parameters and of the gradients.

    Raises:
        PlanError: the optimizer keeps something that nobody could carry to another worker, or cannot step like this.
    """
    name = type(optimizer).__name__
    if _needs_closure(optimizer):
        raise PlanError(
            f"expected an optimizer whose step() needs nothing, found {name}, which evaluates the loss again in a step",
            hint="choose one that works with the gradients alone, such as adamw",
        )
    trial = _copy(optimizer)
    before = {key: _fingerprint(value) for key, value in _own_attributes(trial)}
    parameters = trained_parameters(trial)
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    try:
        trial.step()
    except Exception as error:
        raise PlanError(
            f"{name}: a trial step with zero gradients raised {type(error).__name__}: {error}",
            hint="its options may not fit this model; sparse gradients are not supported",
        ) from error
    after = {key: _fingerprint(value) for key, value in _own_attributes(trial)}
    _check_seen(trial, parameters, changed=sorted(key for key in after if before.get(key) != after[key]))
    return [dict(kept_of(trial, parameter)) for parameter in parameters]


def _needs_closure(optimizer: torch.optim.Optimizer) -> bool:
    parameters = list(inspect.signature(type(optimizer).step).parameters.values())[1:]
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return any(p.default is inspect.Parameter.empty and p.kind in kinds for p in parameters)


def _copy(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Another optimizer of the same class on copies of the parameters, without the hooks of others.

    ``copy.deepcopy`` of an optimizer would leave the attributes of its subclass behind.
    """
    attributes = {name: value for name, value in vars(optimizer).items() if name not in ("step", *_HOOKS)}
    try:
        copied = copy.deepcopy(attributes)
    except Exception as error:
        raise PlanError(
            f"{type(optimizer).__name__} cannot be copied for a trial step: {type(error).__name__}: {error}",
            hint="keep locks, files and the like out of the optimizer",
        ) from error
    trial = object.__new__(type(optimizer))
    vars(trial).update(copied, **{name: OrderedDict() for name in _HOOKS})
    return trial


def _check_seen(trial: torch.optim.Optimizer, parameters: list[Tensor], *, changed: list[str]) -> None:
    name = type(trial).__name__
    if changed:
        where = f"attribute {changed[0]}" if len(changed) == 1 else f"attributes {', '.join(changed)}"
        raise PlanError(
            f"{name} keeps what it learns in its {where}, where nobody can save it",
            hint="an optimizer's state belongs into self.state[parameter] and its parameter groups",
        )
    known = {id(parameter) for parameter in parameters}
    if any(state and id(key) not in known for key, state in trial.state.items()):
        raise PlanError(
            f"{name} keeps state that belongs to no trained parameter",
            hint="an optimizer's state belongs into self.state[parameter]",
        )
    states = [kept_of(trial, parameter) for parameter in parameters]
    names: set[object] = {kind for state in states for kind in state}
    unnamed = sorted(repr(one) for one in names if not isinstance(one, str))
    if unnamed:
        raise PlanError(
            f"{name}: expected texts as names of what it keeps of a parameter, found {', '.join(unnamed)}",
            hint="give what is in self.state[parameter] names",
        )
    kinds = {
        kind: value for state in states for kind, value in state.items() if not isinstance(value, (Tensor, *PLAIN))
    }
    if kinds:
        found = ", ".join(f"{type(value).__name__} in {kind!r}" for kind, value in sorted(kinds.items()))
        raise PlanError(
            f"{name}: expected tensors and numbers in its state, found {found}",
            hint="keep lists and objects out of self.state[parameter]",
        )


def _own_attributes(optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Any]]:
    for name, value in vars(optimizer).items():
        if name not in _TORCHS_OWN and name not in _HOOKS and not name.startswith("_warned"):
            yield name, value


def _fingerprint(value: object) -> object:
    """Something that changes with what an attribute holds, as far as an optimizer may keep state there."""
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, Tensor):
        if value.numel() >= 2:
            return value._version
        return cast("object", value.detach().cpu().tolist())  # pyright: ignore[reportUnknownMemberType]  # open in torch
    if isinstance(value, torch.optim.Optimizer):
        return _fingerprint(dict(value.state)), [_fingerprint(dict(_own_attributes(value)))]
    if is_mapping(value):
        return [(f"{type(key)}", _fingerprint(item)) for key, item in value.items()]
    if is_list(value) or is_tuple(value):
        return [_fingerprint(item) for item in value]
    return type(value)
