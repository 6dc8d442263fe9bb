"""DTensors as parts of logical tensors, and the modules that shard their parameters into them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TypeGuard

import torch
from torch import nn

from trainctl.checkpoint.layout.region import Box, Region, Shape, whole

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def is_dtensor(tensor: object) -> TypeGuard[DTensor]:
    """Whether it is one; where nobody imported DTensors there are none."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def local_part(tensor: torch.Tensor) -> tuple[torch.Tensor, Shape, Region]:
    """The memory of this rank, the global shape, and the region of it that this rank holds."""
    shape = tuple(tensor.shape)
    if not is_dtensor(tensor):
        return tensor, shape, whole(shape)
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    lengths, offsets = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)
    return tensor.to_local().detach(), shape, Box(tuple(offsets), tuple(lengths))


def settle_shards(model: nn.Module) -> None:
    """Frees what a forward pass left gathered under FSDP2, so that the parameters are the shards again."""
    if "torch.distributed.fsdp" not in sys.modules:  # then nobody can have sharded it
        return
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
