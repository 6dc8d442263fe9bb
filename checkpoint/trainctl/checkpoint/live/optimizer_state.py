"""An optimizer's state as something that is there before the first step, so that it can be received into.

Most optimizers make their state in their first step. What it will look like is seen in a trial step, and zeros of that
shape are put in its place. Just before the first real step they are taken away again, so that the optimizer makes its
state itself, exactly as it would have without all this.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from trainctl.checkpoint.live.optimizer_probe import PLAIN, kept_of, trained_parameters, trial_step
from trainctl.core.errors import PlanError
from trainctl.core.plain import is_list, is_tuple

_NONE = object()
_OF_THE_MACHINE = frozenset({"params", "param_names", "foreach", "fused", "capturable", "differentiable"})
"""What a parameter group has that is no setting, or says how to compute here."""


class OptimizerState:
    """One optimizer with state that exists from the start.

    Tensors are found in ``optimizer.state`` as always; ``export`` gives the rest as JSON values: numbers in the state,
    and what the optimizer itself changed in its parameter groups. The learning rate is not its business, unless
    ``export`` is asked for all settings.

    Args:
        optimizer: before or after its first step; parameters, gradients and later steps stay as they would be.
        trial: a copy of it makes a step, which shows what it keeps; otherwise what is there now is all there is.

    Raises:
        PlanError: the optimizer keeps something that nobody could carry to another worker.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, *, trial: bool = True) -> None:
        self._optimizer = optimizer
        self._parameters = trained_parameters(optimizer)
        self._groups = [_scalars(group) for group in optimizer.param_groups]
        self._late: list[tuple[str, ...]] = []
        shown = trial_step(optimizer) if trial else [dict(kept_of(optimizer, p)) for p in self._parameters]
        self._shown = [_shape(state) for state in shown]
        for parameter, state in zip(self._parameters, shown, strict=True):
            there = kept_of(optimizer, parameter)
            late = {kind: value for kind, value in state.items() if kind not in there}
            self._late.append(tuple(late))
            tensors = {kind: value.zero_() for kind, value in late.items() if isinstance(value, Tensor)}
            if tensors:
                optimizer.state[parameter].update(tensors)
        self._started = not any(self._late)

    def step(self) -> None:
        """One step with the gradients that are there.

        Raises:
            PlanError: the optimizer keeps other state than it showed.
        """
        if not self._started:
            self._take_away()
            self._started = True
        self._optimizer.step()

    def check(self) -> None:
        """Sees that the state still has the names, dtypes and shapes that it showed when this object was made.

        Raises:
            PlanError: it has not.
        """
        if not self._started:
            return
        for parameter, shown in zip(self._parameters, self._shown, strict=True):
            found = _shape(kept_of(self._optimizer, parameter))
            if found != shown:
                wrong = sorted(kind for kind in {*found, *shown} if found.get(kind) != shown.get(kind))
                raise PlanError(
                    f"{type(self._optimizer).__name__}: expected the state to keep its shape, found {wrong[0]!r} of a "
                    f"parameter of shape {list(parameter.shape)} as {found.get(wrong[0])} instead of "
                    f"{shown.get(wrong[0])}",
                    hint="an optimizer has to make all of its state in its first step",
                )

    def export(self, *, settings: bool = False) -> dict[str, Any]:
        """What is not a tensor: whether there was a step, numbers by parameter, changed options by parameter group.

        Args:
            settings: all options, the learning rate, too, as ``state_dict`` has them: for who sees the optimizer only
                now, and cannot say what it, or a scheduler, has changed.
        """
        numbers = [
            {kind: value for kind, value in kept_of(self._optimizer, p).items() if isinstance(value, PLAIN)}
            for p in self._parameters
        ]
        return {
            "started": self._started,
            "numbers": numbers if any(numbers) else [],
            "options": [
                _settings(group)
                if settings
                else {name: value for name, value in _scalars(group).items() if first.get(name, _NONE) != value}
                for group, first in zip(self._optimizer.param_groups, self._groups, strict=True)
            ],
        }

    def fit(self, values: Mapping[str, Any]) -> tuple[Sequence[Any], Sequence[Any]]:
        """Numbers by parameter and options by group of what ``export`` gave, if they are this optimizer's.

        Raises:
            PlanError: it is of an optimizer with other parameters.
        """
        nothing: Mapping[str, Any] = {}
        numbers: Sequence[Any] = values.get("numbers") or [nothing] * len(self._parameters)
        options: Sequence[Any] = values.get("options", [nothing] * len(self._groups))
        if len(numbers) != len(self._parameters) or len(options) != len(self._groups):
            raise PlanError(
                f"expected the state of an optimizer of {len(self._parameters)} parameters in {len(self._groups)} "
                f"groups, found one of {len(numbers)} in {len(options)}",
                hint="use the optimizer that the state was saved with, over the same parameters",
            )
        return numbers, options

    def load(self, values: Mapping[str, Any]) -> None:
        """Takes over what ``export`` gave; the tensors come another way.

        Args:
            values: what is left out of them is as after a step, without numbers, with the options as they were.

        Raises:
            PlanError: as ``fit``.
        """
        numbers, options = self.fit(values)
        self._started = values.get("started", True)
        for parameter, found in zip(self._parameters, numbers, strict=True):
            if found:
                self._optimizer.state[parameter].update(found)
        for group, first, found in zip(self._optimizer.param_groups, self._groups, options, strict=True):
            for name, value in {**first, **found}.items():
                if isinstance(group.get(name), Tensor):
                    group[name].fill_(value)
                else:
                    group[name] = value

    def let_go(self) -> None:
        """Leaves the optimizer to those who step it themselves: before its first step as if it had not been seen."""
        if not self._started:
            self._take_away()

    def _take_away(self) -> None:
        for parameter, late in zip(self._parameters, self._late, strict=True):
            state = self._optimizer.state[parameter]
            for kind in late:
                state.pop(kind, None)
            if not state:
                del self._optimizer.state[parameter]


def _scalars(group: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in group.items() if name != "lr" and isinstance(value, PLAIN)}


def _settings(group: Mapping[str, Any]) -> dict[str, Any]:
    values = {name: _plain(value) for name, value in group.items() if name not in _OF_THE_MACHINE}
    return {name: value for name, value in values.items() if value is not _NONE}


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor) and value.numel() == 1:
        return value.item()
    if is_tuple(value) or is_list(value):
        inside = [_plain(one) for one in value]
        return _NONE if _NONE in inside else inside if is_list(value) else tuple(inside)
    return value if isinstance(value, PLAIN) else _NONE


def _shape(state: Mapping[str, Any]) -> dict[str, Any]:
    """Dtype and shape of tensors by kind; of a number, that it is one."""
    return dict(_described(state))


def _described(state: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for kind, value in state.items():
        yield kind, (str(value.dtype), tuple(value.shape)) if isinstance(value, Tensor) else "a number"
