"""The state of a model and its optimizer as named logical tensors: views of the live memory, never copies."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from trainctl.checkpoint.differences import Difference, grouped
from trainctl.checkpoint.layout.key import StateKey, StateVersion
from trainctl.checkpoint.layout.layout import Layout
from trainctl.checkpoint.layout.placement import Placement
from trainctl.checkpoint.layout.region import Region, Shape, check_region, volume
from trainctl.checkpoint.live.dtensor import is_dtensor, local_part
from trainctl.checkpoint.live.extra_state import is_extra_state
from trainctl.checkpoint.live.optimizer_probe import kept_of
from trainctl.checkpoint.live.tensors import dtype_name
from trainctl.core.errors import PlanError

PARAM = "param"
BUFFER = "buffer"


@dataclass(frozen=True, slots=True)
class StateTensor:
    """A live tensor and the part of a logical tensor that it holds.

    Attributes:
        key: which logical tensor.
        shape: global shape.
        region: which part; a box has the tensor's own shape, a flat range its elements in row-major order.
        tensor: the live tensor.
        wrapper: the DTensor that it is the local part of; None: it is none. What is done to a DTensor counts in its
            own version only, not in that of the part.
    """

    key: StateKey
    shape: Shape
    region: Region
    tensor: torch.Tensor
    wrapper: torch.Tensor | None = None

    @property
    def changes(self) -> tuple[int, ...]:
        """Another value after each change that torch counts."""
        return (self.tensor._version, *(() if self.wrapper is None else (self.wrapper._version,)))


@dataclass(frozen=True, slots=True)
class LocalState:
    """What one rank holds.

    Attributes:
        tensors: in an order that is the same on all ranks; regions of one key do not overlap.
        objects: small JSON-like values, equal on all ranks.
        artifacts: files to keep beside the tensors (``config.json``, tokenizer), by relative path.
        aliases: names of tied tensors -> the name that they are stored under.
    """

    tensors: tuple[StateTensor, ...]
    objects: Mapping[str, Any] = field(default_factory=dict[str, Any])
    artifacts: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    aliases: Mapping[str, str] = field(default_factory=dict[str, str])

    def shapes(self) -> dict[StateKey, Shape]:
        """Global shape of every key."""
        return {t.key: t.shape for t in self.tensors}

    def full_bytes(self) -> int:
        """Size of one full copy, whatever part of it this rank holds."""
        return sum(key.item_bytes * math.prod(shape) for key, shape in self.shapes().items())

    def check(self) -> None:
        """Sees that every tensor is what its key and its region say: what is saved is found again by these alone.

        Raises:
            PlanError: lists all that are not.
        """
        _refuse(Difference(t.key.kind, t.key.fqn, problem) for t in self.tensors if (problem := _unlike(t)))

    def of_kinds(self, *kinds: str) -> LocalState:
        """The same without tensors of other kinds."""
        return replace(self, tensors=tuple(t for t in self.tensors if t.key.kind in kinds))

    def layout(self, holder: str) -> Layout:
        """This state as the layout of one holder."""
        held: dict[StateKey, tuple[Region, ...]] = {}
        for t in self.tensors:
            held[t.key] = (*held.get(t.key, ()), t.region)
        # Most tensors lie as others do: those share a placement.
        alike: dict[tuple[Shape, tuple[Region, ...]], Placement] = {}
        placements: dict[StateKey, Placement] = {}
        for key, shape in self.shapes().items():
            what = tuple(shape), held[key]
            if what not in alike:
                alike[what] = Placement(what[0], {holder: what[1]})
            placements[key] = alike[what]
        return Layout.placed(placements, [holder])


def state_of(
    model: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer] = (),
    *,
    modules: Mapping[str, nn.Module] | None = None,
    instance: str,
    version: StateVersion,
    objects: Mapping[str, Any] | None = None,
    artifacts: Mapping[str, bytes] | None = None,
) -> LocalState:
    """Names every parameter (kind ``param``), persistent buffer (``buffer``) and optimizer tensor (``exp_avg``, ...).

    Optimizer tensors are keyed by the name of their parameter. Tied tensors appear once, under their first name. What
    modules keep beside tensors (``ExtraState``) is for the caller to put into ``objects``.

    Args:
        model: its tensors keep the names they have in it.
        optimizers: over its parameters; make their ``OptimizerState`` first, so that all ranks agree.
        modules: further modules; their tensors are named ``<name>.<fqn>``.
        instance: the island, or a name shared by all.
        version: of the state that the tensors hold now.
        objects: goes into the result.
        artifacts: goes into the result.

    Raises:
        PlanError: a dtype or a placement of a DTensor cannot be stored (all such tensors are named), or the optimizer
            holds a parameter that is not the model's.
    """
    named, aliases = _untied({"": model, **{f"{name}.": module for name, module in (modules or {}).items()}})
    names = {id(tensor): fqn for fqn, tensor in named.items()}
    listed = [(fqn, PARAM if isinstance(tensor, nn.Parameter) else BUFFER, tensor) for fqn, tensor in named.items()]
    for parameter, kind, tensor in (found for optimizer in optimizers for found in _optimizer_tensors(optimizer)):
        if id(parameter) not in names:
            raise PlanError(
                f"expected only the model's parameters in the optimizer, found another, shape {list(parameter.shape)}",
                hint="make the optimizer from model.parameters()",
            )
        listed.append((names[id(parameter)], kind, tensor))
    tensors: list[StateTensor] = []
    problems: list[Difference] = []
    hints: list[str] = []
    for fqn, kind, tensor in listed:
        try:
            tensors.append(_tensor(fqn, kind, tensor, instance, version))
        except PlanError as error:
            problems.append(Difference(kind, fqn, str(error)))
            hints.append(error.hint)
    _refuse(problems, hint="; ".join(dict.fromkeys(hints)))
    return LocalState(tuple(tensors), objects or {}, artifacts or {}, aliases)


def _refuse(problems: Iterable[Difference], hint: str = "") -> None:
    """Raises: PlanError: there are any."""
    lines = grouped(problems)
    if lines:
        head = ["these tensors cannot be saved or loaded:"] if len(lines) > 1 else []
        raise PlanError(
            "\n".join([*head, *lines]), hint=hint or "correct what is said of them where they are registered"
        )


def _unlike(t: StateTensor) -> str:
    """What is wrong with a tensor; empty if nothing is."""
    try:
        check_region(t.shape, t.region)
        if t.key.dtype != dtype_name(t.tensor.dtype):
            return f"expected {t.key.dtype}, as its key says, found {t.tensor.dtype}"
    except PlanError as error:
        return str(error)
    if t.tensor.is_meta:
        return "expected values, found a tensor on the meta device, which has none (to_empty makes room for them)"
    if t.tensor.numel() != volume(t.region):
        return f"expected {volume(t.region)} elements for {t.region} of {list(t.shape)}, found {list(t.tensor.shape)}"
    return ""


def _untied(modules: Mapping[str, nn.Module]) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors of modules (by the prefix of their names) under the first of their names, and the other names."""
    named: dict[str, torch.Tensor] = {}
    aliases: dict[str, str] = {}
    first: dict[tuple[object, ...], str] = {}
    states = (module.state_dict(prefix=prefix, keep_vars=True).items() for prefix, module in modules.items())
    for fqn, tensor in (named_tensor for state in states for named_tensor in state):
        if is_extra_state(fqn) or not isinstance(tensor, torch.Tensor):
            continue  # of no memory that could be filled: ``ExtraState`` goes with the objects
        memory: tuple[object, ...] = (id(tensor),)
        if tensor.numel() and not is_dtensor(tensor):
            memory = (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
        if memory in first:
            aliases[fqn] = first[memory]
        else:
            first[memory] = fqn
            named[fqn] = tensor
    return named, aliases


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> Iterator[tuple[torch.Tensor, str, torch.Tensor]]:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            for kind, value in sorted(kept_of(optimizer, parameter).items()):
                if isinstance(value, torch.Tensor):
                    yield parameter, kind, value


def _tensor(fqn: str, kind: str, tensor: torch.Tensor, instance: str, version: StateVersion) -> StateTensor:
    local, shape, region = local_part(tensor)
    wrapper = tensor if is_dtensor(tensor) else None
    return StateTensor(StateKey(fqn, kind, dtype_name(tensor.dtype), instance, version), shape, region, local, wrapper)
