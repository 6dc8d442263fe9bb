"""Which part of a tensor a rank holds, by the placements of a DTensor; what cannot be said so is refused.

Without it a rank could save a part that it does not hold.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
from torch.distributed.tensor._utils import _compute_local_shape_and_global_offset
from torch.distributed.tensor.placement_types import Placement, _StridedShard
from torch.testing._internal.distributed.fake_pg import FakeStore

from trainctl.checkpoint.layout.region import Box, Flat
from trainctl.checkpoint.live.dtensor import _is_cut_into_boxes, local_part
from trainctl.core.errors import PlanError


def chunk(rows: torch.Tensor, count: int, index: int) -> torch.Tensor:
    """As ``torch.chunk``, but so many in any case."""
    found = rows.chunk(count) if len(rows) else ()
    return found[index] if index < len(found) else rows[:0]


def fsdp_over_tensor_parallel(size: int, data: int, tensor: int) -> Iterator[tuple[Sequence[int], list[int]]]:
    """What each rank really has: FSDP2 cuts the part that tensor parallelism has left."""
    for place in itertools.product(range(data), range(tensor)):
        yield place, chunk(chunk(torch.arange(size), tensor, place[1]), data, place[0]).tolist()


@pytest.mark.parametrize(("data", "tensor"), [(2, 2), (3, 2), (2, 3), (4, 3), (2, 8)])
@pytest.mark.parametrize("size", [1, 2, 5, 6, 7, 9, 10, 12, 13, 16, 24, 25, 31, 48])
def test_a_tensor_that_two_axes_cut_is_taken_only_where_torch_says_what_is_there(
    size: int, data: int, tensor: int
) -> None:
    placements = [_StridedShard(0, split_factor=tensor), Shard(0)]
    right = []
    for place, rows in fsdp_over_tensor_parallel(size, data, tensor):
        ((length,), (offset,)) = _compute_local_shape_and_global_offset(
            (size,), (data, tensor), list(place), placements
        )
        right.append(list(range(offset, offset + length)) == rows)
    assert _is_cut_into_boxes(size, ((data, tensor), (tensor, 0))) == all(right)
    assert all(right) or size % (data * tensor)


@pytest.fixture
def group() -> Iterator[None]:
    """Rank 3 of 6, alone."""
    dist.init_process_group("fake", store=FakeStore(), rank=3, world_size=6)
    yield
    dist.destroy_process_group()


def held(
    local: tuple[int, ...], mesh: tuple[int, ...], placements: Sequence[Placement], shape: tuple[int, ...]
) -> DTensor:
    return DTensor.from_local(
        torch.zeros(local),
        init_device_mesh("cpu", mesh),
        placements,
        run_check=False,
        shape=torch.Size(shape),
        stride=torch.zeros(shape).stride(),
    )


@pytest.mark.usefixtures("group")
def test_a_copy_a_row_block_and_a_block_of_two_axes() -> None:
    assert local_part(held((4, 5), (6,), [Replicate()], (4, 5)))[1:] == ((4, 5), Box((0, 0), (4, 5)))
    assert local_part(held((2, 5), (6,), [Shard(0)], (11, 5)))[1:] == ((11, 5), Box((6, 0), (2, 5)))
    assert local_part(held((0, 5), (6,), [Shard(0)], (3, 5)))[1:] == ((3, 5), Box((3, 0), (0, 5)))
    assert local_part(held((2, 1), (3, 2), [Shard(0), Shard(1)], (6, 3)))[1:] == ((6, 3), Box((2, 2), (2, 1)))


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize(
    ("local", "mesh", "placements", "shape", "says"),
    [
        ((4, 5), (6,), [Partial()], (4, 5), r"parts or copies .* found placements P\(sum\) on a mesh of 6: .* a sum"),
        ((2, 5), (3, 2), [Shard(0), Partial("avg")], (6, 5), r"placements S\(0\), P\(avg\) on a mesh of 3 x 2"),
        ((1, 5), (3, 2), [_StridedShard(0, split_factor=2), Shard(0)], (7, 5), "7 of dim 0 are cut so unevenly"),
        ((2, 5), (6,), [_StridedShard(0, split_factor=2)], (12, 5), "or each rank has several pieces"),
        ((5, 5), (6,), [Shard(0)], (12, 5), r"expected \[2, 5\] of \[12, 5\] on this rank.*found \[5, 5\]"),
    ],
)
def test_what_no_box_says_is_refused(
    local: tuple[int, ...], mesh: tuple[int, ...], placements: Sequence[Placement], shape: tuple[int, ...], says: str
) -> None:
    with pytest.raises(PlanError, match=says) as caught:
        local_part(held(local, mesh, placements, shape))
    assert caught.value.hint


@pytest.mark.usefixtures("group")
def test_a_rank_outside_of_the_mesh_holds_nothing() -> None:
    tensor = DTensor.from_local(
        torch.zeros(2, 5),
        DeviceMesh("cpu", [0, 1]),
        [Shard(0)],
        run_check=False,
        shape=torch.Size((4, 5)),
        stride=(5, 1),
    )
    local, shape, region = local_part(tensor)
    assert (local.numel(), shape, region) == (0, (4, 5), Flat(0, 0))
