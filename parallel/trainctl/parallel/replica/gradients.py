"""Gradients in flat memory of our own: what is retained must never be the buffer of a collective still in flight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from trainctl.core.errors import PlanError
from trainctl.parallel.plan.micro_batches import deal

_DTYPES = (torch.float32, torch.float64)
_NORM_BLOCK = 1 << 16


@dataclass(frozen=True, slots=True)
class FlatBuffer:
    """The gradients of one dtype of one parameter group.

    Attributes:
        group_index: number of the parameter group.
        tensor: shape (elements,); each ``parameter.grad`` is a view of it.
        bindings: every parameter and its view.
    """

    group_index: int
    tensor: Tensor
    bindings: tuple[tuple[Tensor, Tensor], ...]


class Gradients(Protocol):
    """What a step does with gradients, however they are kept.

    Attributes:
        num_groups: parameter groups.
        buffers: what is still to be summed over the ranks.
    """

    num_groups: int
    buffers: tuple[FlatBuffer, ...]

    def renew(self) -> None:
        """Leaves the memory to whoever may still write to it."""
        ...

    def clear(self) -> None:
        """Begins a step."""
        ...

    def check_bound(self) -> None:
        """Sees that autograd accumulated where it should."""
        ...

    def squared_norms(self, rank: int, size: int) -> tuple[float, ...]:
        """Per parameter group, this rank's share of the squared norm."""
        ...

    def scale(self, factor: float) -> None:
        """Multiplies all gradients in place."""
        ...


class FlatGradients:
    """All gradients of the trained parameters, accumulated in place by autograd.

    Args:
        groups: parameter groups of the optimizers.

    Raises:
        PlanError: a parameter has a dtype whose gradient cannot be retained exactly.
    """

    def __init__(self, groups: Sequence[Mapping[str, Any]]) -> None:
        self.num_groups = len(groups)
        buffers: list[FlatBuffer] = []
        for index, group in enumerate(groups):
            trained = [parameter for parameter in group["params"] if parameter.requires_grad]
            for dtype in sorted({parameter.dtype for parameter in trained}, key=str):
                buffers.append(_bind(index, [p for p in trained if p.dtype == dtype]))
        self.buffers = tuple(buffers)
        self._block: dict[torch.device, Tensor] = {
            buffer.tensor.device: torch.empty(_NORM_BLOCK, dtype=torch.float64, device=buffer.tensor.device)
            for buffer in buffers
        }

    def renew(self) -> None:
        """Leaves the memory to whoever may still write to it, and starts with zeros in new memory."""
        self.buffers = tuple(_bind(buffer.group_index, [p for p, _ in buffer.bindings]) for buffer in self.buffers)
        self.clear()

    def clear(self) -> None:
        """Sets all gradients to zero and makes every ``parameter.grad`` our view (again)."""
        for buffer in self.buffers:
            buffer.tensor.zero_()
            for parameter, view in buffer.bindings:
                parameter.grad = view

    def check_bound(self) -> None:
        """Sees that autograd accumulated into our memory.

        Raises:
            PlanError: a loop replaced ``parameter.grad``, for example with ``optimizer.zero_grad()``.
        """
        for buffer in self.buffers:
            for parameter, view in buffer.bindings:
                if parameter.grad is not view:
                    raise PlanError(
                        f"a parameter of shape {list(parameter.shape)}: expected the session's gradient, found another",
                        hint="leave zero_grad, clipping and optimizer.step to the session",
                    )

    def squared_norms(self, rank: int, size: int) -> tuple[float, ...]:
        """Per parameter group, the squared norm in fp64 over this rank's 1/size of the elements.

        Over all ranks each element is counted once. Not finite if and only if an element is not.
        """
        norms = [0.0] * self.num_groups
        for buffer in self.buffers:
            part = deal(buffer.tensor.numel(), size)[rank]
            norms[buffer.group_index] += self._squared_norm(buffer.tensor[part.start : part.stop])
        return tuple(norms)

    def scale(self, factor: float) -> None:
        """Multiplies all gradients in place."""
        for buffer in self.buffers:
            buffer.tensor.mul_(factor)

    def _squared_norm(self, flat: Tensor) -> float:
        """Block by block through one buffer that is kept: nothing is allocated in a step."""
        block = self._block[flat.device]
        total = torch.zeros((), dtype=torch.float64, device=flat.device)
        for start in range(0, flat.numel(), _NORM_BLOCK):
            part = flat[start : start + _NORM_BLOCK]
            wide = block[: part.numel()].copy_(part)
            total += torch.dot(wide, wide)
        return float(total)


def _bind(group_index: int, parameters: list[Tensor]) -> FlatBuffer:
    """New memory for the gradients of ``parameters``, which are of one dtype."""
    first = parameters[0]
    if first.dtype not in _DTYPES:
        raise PlanError(
            f"expected parameters in float32 or float64, found {first.dtype}",
            hint="keep the master weights in float32 and compute in bfloat16 under torch.autocast",
        )
    flat = torch.zeros(sum(p.numel() for p in parameters), dtype=first.dtype, device=first.device)
    parts = torch.split(flat, [parameter.numel() for parameter in parameters])
    views = (part.view(parameter.shape) for part, parameter in zip(parts, parameters, strict=True))
    return FlatBuffer(group_index, flat, tuple(zip(parameters, views, strict=True)))
