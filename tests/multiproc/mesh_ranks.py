"""What the ranks of ``test_library_meshes`` do: a module of its own, which their processes can import."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from trainctl.checkpoint.library import Checkpointer, load, save
from trainctl.core.errors import CheckpointError

WIDTH = 10


def built(seed: int = 3) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Rows that divide by none of the meshes."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, WIDTH), nn.GELU(), nn.Linear(WIDTH, 3)).double()
    return model, torch.optim.AdamW(model.parameters(), lr=0.05)


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=0.05)


def hybrid(model: nn.Module) -> None:
    """HSDP: two replicas of two shards."""
    fully_shard(model, mesh=init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard")))


def sharded_and_tensor_parallel(model: nn.Module) -> None:
    """FSDP2 over what tensor parallelism has left; both cut one dim of the first weight: ``_StridedShard``."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor"))
    parallelize_module(model, mesh["tensor"], {"0": ColwiseParallel(), "2": RowwiseParallel()})
    fully_shard(model, mesh=mesh["data"])
    weight = model.get_parameter("0.weight")
    assert isinstance(weight, DTensor)
    assert "_S(0, 2)" in str(weight.placements[0])


def tensor_parallel(model: nn.Module) -> None:
    mesh = init_device_mesh("cpu", (2,))
    parallelize_module(model, mesh, {"0": ColwiseParallel(), "2": RowwiseParallel()})


def sharded(model: nn.Module) -> None:
    fully_shard(model, mesh=init_device_mesh("cpu", (2,)))


def replicated_columns(model: nn.Module) -> None:
    """The second weight by its columns, twice."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "tensor"))
    parallelize_module(model, mesh["tensor"], {"0": ColwiseParallel(), "2": RowwiseParallel()})


CASES = {"hybrid": hybrid, "both": sharded_and_tensor_parallel, "columns": replicated_columns}
TARGETS = {"tensor": tensor_parallel, "sharded": sharded}


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    rows = torch.randn(12, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    model(rows).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def whole(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Every value as torch itself puts it together."""
    found = {}
    for name, parameter in model.named_parameters():
        found[name] = parameter
        found |= {f"{name} {kind}": value for kind, value in optimizer.state[parameter].items()}
    full = {name: value.full_tensor() if isinstance(value, DTensor) else value for name, value in found.items()}
    return {name: value.detach().clone().contiguous() for name, value in full.items()}


def saves_from_meshes(folder: Path, rank: int, size: int) -> None:
    for name, shard in CASES.items():
        model, _ = built()
        shard(model)
        optimizer = optimizer_of(model)
        step(model, optimizer)
        save(str(folder / name), model=model, optimizers=[optimizer], step=1)
        values = whole(model, optimizer)
        if rank == 0:
            save_file(values, folder / f"{name}.safetensors")
    sums_are_refused(folder, rank, size)
    one_rank_alone_is_refused(folder, rank, size)


def loads_into_meshes(folder: Path, rank: int, size: int) -> None:
    for name in CASES:
        expected = load_file(folder / f"{name}.safetensors")
        for shard in TARGETS.values():
            model, _ = built(seed=4)
            shard(model)
            optimizer = optimizer_of(model)
            step(model, optimizer)
            load(str(folder / name), model=model, optimizers=[optimizer])
            found = whole(model, optimizer)
            assert found.keys() == expected.keys()
            assert all(torch.equal(found[key], value) for key, value in expected.items())


class Holding(nn.Module):
    """Parameters as they are given."""

    def __init__(self, **tensors: torch.Tensor) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            self.register_parameter(name, nn.Parameter(tensor))


def _spread(mesh: DeviceMesh, *placements: object) -> torch.Tensor:
    return DTensor.from_local(torch.ones(2, 2), mesh, placements, run_check=False)  # type: ignore[arg-type]


def sums_are_refused(folder: Path, rank: int, size: int) -> None:
    """A term of a sum is not the sum; every rank says so, of every such tensor, and nothing is written."""
    mesh = init_device_mesh("cpu", (2, 2))
    model = Holding(
        fine=_spread(mesh, Shard(0), Replicate()),
        sum_a=_spread(mesh, Shard(0), Partial()),
        sum_b=_spread(mesh, Partial("max"), Shard(1)),
    )
    for text in _refusals(folder, model):
        assert "ranks 0-3: " in text
        assert (
            "param of sum_a: expected parts or copies of a tensor on the ranks, found placements S(0), P(sum)" in text
        )
        assert "param of sum_b" in text
        assert "mesh of 2 x 2" in text
        assert "tensor.redistribute(placements=" in text
        assert "fine" not in text
    assert not (folder / "refused").exists()


def one_rank_alone_is_refused(folder: Path, rank: int, size: int) -> None:
    """What only one rank finds wrong is heard by all, and nobody waits for it."""
    model = Holding(odd=torch.zeros(2, dtype=torch.complex128 if rank == 2 else torch.float32))
    for text in _refusals(folder, model):
        assert "rank 2: param of odd: expected a dtype of " in text
        assert "complex128 (keep this tensor in one of these dtypes" in text


def _refusals(folder: Path, model: nn.Module) -> Iterator[str]:
    """What is said by all that looks at the state."""
    with Checkpointer(str(folder / "refused")) as checkpointer:
        for act in (
            lambda: save(str(folder / "refused"), model=model, step=1),
            lambda: load(str(folder / "hybrid"), model=model),
            lambda: checkpointer.async_save(model=model, step=1),
        ):
            with pytest.raises(CheckpointError) as caught:
                act()
            yield str(caught.value)
