"""What a loop registers: everything that has to survive the process it lives in."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from trainctl.checkpoint.live.extra_state import NAME as EXTRA
from trainctl.checkpoint.live.extra_state import ExtraState
from trainctl.checkpoint.manifest.values import encode_value
from trainctl.core.errors import CheckpointError, PlanError
from trainctl.core.texts import listed

_LOG = logging.getLogger("trainctl.session")
_SCALARS = (bool, int, float, str)
AfterStep = Callable[[int], None]
"""Called with the number of a committed step."""


def nothing(_: int) -> None:
    """After a step there is nothing to do."""


class Stateful(Protocol):
    """Something with a state of JSON values: a data loader, a counter, a curriculum."""

    def state_dict(self) -> Mapping[str, Any]:
        """The state as JSON values, equal on all ranks at a step boundary."""
        ...

    def load_state_dict(self, state: Any, /) -> Any:
        """Takes back what ``state_dict`` gave."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingState:
    """Modules, optimizers, schedulers and other objects, alike on all ranks.

    Attributes:
        model: the model; its tensors keep the names they have in it.
        optimizers: over parameters of ``model`` and ``modules``.
        modules: further modules by name, such as an average of the weights; their tensors are named ``<name>.<fqn>``.
        schedulers: learning-rate schedulers, stepped once for every committed step.
        objects: other things with a state of JSON values; changes made in a step are taken back if it is repeated.
        artifacts: files to keep in every checkpoint, by relative path.
        after_step: brings ``modules`` up to date: called on every rank, once for every committed step, before the
            step's state can be saved or copied.
        extra: what the modules keep beside tensors; an object as the others are.
    """

    model: nn.Module
    optimizers: Sequence[torch.optim.Optimizer]
    modules: Mapping[str, nn.Module] = field(default_factory=dict[str, nn.Module])
    schedulers: Sequence[LRScheduler] = ()
    objects: Mapping[str, Stateful] = field(default_factory=dict[str, Stateful])
    artifacts: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    after_step: AfterStep = nothing
    extra: ExtraState = field(init=False)

    def __post_init__(self) -> None:
        named = {"": self.model, **{f"{name}.": module for name, module in self.modules.items()}}
        object.__setattr__(self, "extra", ExtraState(named))

    def check(self) -> None:
        """Sees that it can be saved.

        Raises:
            PlanError: an object's state holds what cannot be stored; names the object and all of that. Or its name is
                taken.
        """
        if EXTRA in self.objects:
            raise PlanError(
                f"objects: the name {EXTRA!r} is taken by what modules keep beside tensors (get_extra_state)",
                hint="choose another name",
            )
        for name, thing in self._named_objects():
            try:
                encode_value(thing.state_dict(), path=name)
            except CheckpointError as error:
                raise PlanError(
                    f"expected JSON values in the state of {name!r}, found: {error}",
                    hint="tensors belong into a module (register(modules=...)); turn the rest into numbers and texts",
                ) from error

    def parameter_groups(self) -> Iterator[dict[str, Any]]:
        """All parameter groups, optimizer by optimizer."""
        for optimizer in self.optimizers:
            yield from optimizer.param_groups

    def export_objects(self, *, hyperparameters: bool) -> dict[str, Any]:
        """The states of objects and schedulers; with ``hyperparameters`` also what the parameter groups say."""
        exported: dict[str, Any] = {name: thing.state_dict() for name, thing in self._named_objects()}
        if hyperparameters:
            exported["parameter groups"] = [_scalars(group) for group in self.parameter_groups()]
        return exported

    def import_objects(self, values: Mapping[str, Any], *, hyperparameters: bool) -> None:
        """Loads what ``export_objects`` gave.

        Raises:
            PlanError: it is the state of other objects than those registered here.
        """
        own = dict(self._named_objects())
        wanted = {*own, *(["parameter groups"] if hyperparameters else [])}
        if EXTRA in wanted and EXTRA not in values:
            _LOG.warning("what modules keep beside tensors (get_extra_state) was not saved: it stays as it was built")
            del own[EXTRA]
            wanted.remove(EXTRA)
        if set(values) != wanted:
            raise PlanError(
                f"expected the objects {listed(wanted)}, found {listed(values)}: the state was made by another program",
                hint="register the same objects, or begin without resumeFrom",
            )
        for name, thing in own.items():
            thing.load_state_dict(values[name])
        if hyperparameters:
            for group, saved in zip(self.parameter_groups(), values["parameter groups"], strict=True):
                group.update({name: _like(group.get(name), value) for name, value in saved.items()})

    def _named_objects(self) -> Iterator[tuple[str, Stateful]]:
        yield from self.objects.items()
        if self.extra:
            yield EXTRA, self.extra
        for index, scheduler in enumerate(self.schedulers):
            yield f"scheduler {index}", scheduler


def _scalars(group: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in group.items() if name != "params" and _is_plain(value)}


def _is_plain(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return all(isinstance(item, _SCALARS) for item in cast("Sequence[object]", value))
    return isinstance(value, _SCALARS)


def _like(old: object, new: Any) -> Any:
    """JSON knows no tuples."""
    return tuple(new) if isinstance(old, tuple) else new
