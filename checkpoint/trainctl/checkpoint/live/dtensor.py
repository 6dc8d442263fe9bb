"""DTensors as parts of logical tensors, and the modules that shard their parameters into them."""

from __future__ import annotations

import functools
import itertools
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, TypeGuard

import torch
from torch import nn

from trainctl.checkpoint.layout.region import Box, Flat, Region, Shape, merge_runs, whole
from trainctl.core.errors import PlanError

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

_Cut = tuple[int, int]
"""Over how many ranks a dim is cut, and into how many pieces before that; 0: it is cut where it is."""


def is_dtensor(tensor: object) -> TypeGuard[DTensor]:
    """Whether it is one; where nobody imported DTensors there are none."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def local_part(tensor: torch.Tensor) -> tuple[torch.Tensor, Shape, Region]:
    """The memory of this rank, the global shape, and the region of it that this rank holds.

    Raises:
        PlanError: what the ranks hold are not parts or copies of a tensor, or not boxes of it. On all ranks alike.
    """
    shape = tuple(tensor.shape)
    if not is_dtensor(tensor):
        return tensor, shape, whole(shape)
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    _check_placements(tensor)
    local = tensor.to_local().detach()
    if tensor.device_mesh.get_coordinate() is None:  # other ranks have it
        return local, shape, Flat(0, 0)
    lengths, offsets = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)
    if tuple(local.shape) != tuple(lengths):
        raise PlanError(
            f"expected {list(lengths)} of {list(shape)} on this rank, as its placements say, found {list(local.shape)}",
            hint="give DTensor.from_local the shape of the whole tensor, or make it with distribute_tensor",
        )
    return local, shape, Box(tuple(offsets), tuple(lengths))


def _check_placements(tensor: DTensor) -> None:
    from torch.distributed.tensor import Replicate

    placements, mesh = tensor.placements, tensor.device_mesh
    found = f"found placements {', '.join(map(str, placements))} on a mesh of {_by(mesh.shape)}"
    if any(placement.is_partial() for placement in placements):
        raise PlanError(
            f"expected parts or copies of a tensor on the ranks, {found}: each rank has a term of a sum",
            hint="add the terms up before: tensor.redistribute(placements=[Replicate(), ...])",
        )
    if not all(isinstance(placement, Replicate) or _cuts(placement) for placement in placements):
        raise PlanError(
            f"expected placements Shard or Replicate, {found}", hint="redistribute it to one of them before"
        )
    strided = {placement.dim for placement in placements if _is_strided(placement)}
    for dim in sorted(strided):
        cuts = tuple(
            (ranks, placement.split_factor if _is_strided(placement) else 0)
            for ranks, placement in zip(mesh.shape, placements, strict=True)
            if _cuts(placement) and placement.dim == dim
        )
        if not _is_cut_into_boxes(tensor.shape[dim], cuts):
            raise PlanError(
                f"expected one box of the tensor on each rank, {found}: {tensor.shape[dim]} of dim {dim} are cut "
                "so unevenly that torch itself tells them apart wrongly, or each rank has several pieces",
                hint="make that size a multiple of the number of ranks that share it",
            )


class _Cutting(Protocol):
    """What is used of torch's ``Shard``."""

    dim: int


class _Strided(_Cutting, Protocol):
    """What is used of torch's ``_StridedShard``."""

    split_factor: int


def _cuts(placement: object) -> TypeGuard[_Cutting]:
    from torch.distributed.tensor import Shard

    return isinstance(placement, Shard) or _is_strided(placement)


def _is_strided(placement: object) -> TypeGuard[_Strided]:
    from torch.distributed.tensor.placement_types import (
        _StridedShard,  # pyright: ignore[reportPrivateUsage]  # torch has no public name for what FSDP2 makes
    )

    return isinstance(placement, _StridedShard)


def _by(sizes: Sequence[int]) -> str:
    return " x ".join(map(str, sizes))


@functools.lru_cache(maxsize=4096)
def _is_cut_into_boxes(size: int, cuts: tuple[_Cut, ...]) -> bool:
    """Whether every rank has one range of the dim, and the same one however the placements are read.

    FSDP2 cuts what tensor parallelism has left: from right to left, ``_StridedShard`` last. Torch reads placements from
    left to right. Where sizes do not divide, the two may differ, and then what a rank has is not what torch thinks.
    """
    inner = [at for at, (_, pieces) in enumerate(cuts) if not pieces]
    outer = [at for at, (_, pieces) in reversed(list(enumerate(cuts))) if pieces]
    for place in itertools.product(*(range(ranks) for ranks, _ in cuts)):
        as_read = [(0, size)]
        for (ranks, pieces), index in zip(cuts, place, strict=True):
            as_read = list(_interleaved(as_read, ranks, index, pieces or 1))
        as_made = [(0, size)]
        for at in (*inner, *outer):
            as_made = list(_interleaved(as_made, cuts[at][0], place[at], 1))
        held = merge_runs(Flat(*run) for run in as_read)
        if len(held) > 1 or held != merge_runs(Flat(*run) for run in as_made):
            return False
    return True


def _interleaved(runs: Sequence[tuple[int, int]], ranks: int, index: int, pieces: int) -> Iterator[tuple[int, int]]:
    """Cuts the runs into pieces, as ``torch.chunk`` does, each of them over the ranks, and takes one rank's."""
    for piece in range(pieces):
        yield from _chunk(list(_chunk(runs, pieces, piece)), ranks, index)


def _chunk(runs: Sequence[tuple[int, int]], count: int, index: int) -> Iterator[tuple[int, int]]:
    total = sum(stop - start for start, stop in runs)
    width = -(-total // count)
    low, high = min(total, index * width), min(total, (index + 1) * width)
    for start, stop in runs:
        if low < stop - start and high > 0:
            yield start + max(0, low), min(stop, start + high)
        low, high = low - (stop - start), high - (stop - start)


def settle_shards(model: nn.Module) -> None:
    """Frees what a forward pass left gathered under FSDP2, so that the parameters are the shards again."""
    if "torch.distributed.fsdp" not in sys.modules:  # then nobody can have sharded it
        return
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
