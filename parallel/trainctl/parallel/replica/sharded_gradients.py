"""Gradients that the model reduces itself: each rank has those of its own shards, as FSDP2 leaves them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from trainctl.checkpoint.live.dtensor import is_dtensor
from trainctl.core.errors import PlanError
from trainctl.parallel.replica.gradients import FlatBuffer


class ShardedGradients:
    """Like ``FlatGradients``, for parameters that are DTensors with one shard a rank.

    Args:
        groups: parameter groups of the optimizers.

    Attributes:
        buffers: none: there is nothing left to reduce.

    Raises:
        PlanError: a trained parameter is not sharded over all ranks; says which.
    """

    def __init__(self, groups: Sequence[Mapping[str, Any]]) -> None:
        self.num_groups = len(groups)
        self.buffers: tuple[FlatBuffer, ...] = ()
        self._groups = tuple(tuple(p for p in group["params"] if p.requires_grad) for group in groups)
        for parameter in (p for group in self._groups for p in group):
            if not is_sharded(parameter):
                raise PlanError(
                    f"expected every trained parameter sharded over the mesh, found {list(parameter.shape)} whole",
                    hint="call fully_shard(model, mesh=mesh) on the root module, too",
                )

    def renew(self) -> None:
        """Nothing here belongs to a collective."""

    def clear(self) -> None:
        """No gradients."""
        for group in self._groups:
            for parameter in group:
                parameter.grad = None

    def check_bound(self) -> None:
        """Whatever the model accumulated into is right."""

    def squared_norms(self, rank: int, size: int) -> tuple[float, ...]:
        """Per parameter group, the squared norm in fp64 of this rank's shards; over all ranks each element once."""
        del rank, size
        return tuple(sum(float(g.double().square().sum()) for g in _local(group)) for group in self._groups)

    def scale(self, factor: float) -> None:
        """Multiplies all gradients in place."""
        for group in self._groups:
            for gradient in _local(group):
                gradient.mul_(factor)


def is_sharded(parameter: Tensor) -> bool:
    """Whether each rank of its mesh holds another part of it."""
    return is_dtensor(parameter) and all(placement.is_shard() for placement in parameter.placements)


def _local(group: Sequence[Tensor]) -> Iterator[Tensor]:
    for parameter in group:
        if parameter.grad is not None:
            gradient: Any = parameter.grad
            yield gradient.to_local()


def sum_instead_of_mean(model: nn.Module) -> None:
    """FSDP2 divides by the number of ranks; the session divides by the number of targets."""
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo has no scaled sum
