"""A plain DDP script, as torchrun starts it: knows nothing of trainctl but the folder for its checkpoints.

Learns y = 2x + 1; saves after every step and goes on from there when it is started again.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch
import torch.distributed as dist
from told import behave, note, options  # type: ignore[import-not-found]  # it lies beside this script
from torch.nn.parallel import DistributedDataParallel


def main() -> None:
    told = options()
    folder = Path(os.environ["TRAINCTL_WORKDIR"])
    dist.init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    assert (rank, size) == (int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    note(folder)
    torch.manual_seed(0)
    model = DistributedDataParallel(torch.nn.Linear(1, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    first = load(folder, model, optimizer)
    print(f"rank {rank} of {size} begins with step {first}", flush=True)
    for step in range(first, told.steps):
        behave(told, folder, rank, step)
        x = torch.rand(8, 1, generator=torch.Generator().manual_seed(step * size + rank))
        loss = ((model(x) - (2 * x + 1)) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if rank == 0:
            save(folder, model, optimizer, step + 1)
            print(f"step {step + 1} loss {loss.item():.4f}", flush=True)
        time.sleep(told.pause)
    dist.destroy_process_group()


def load(folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> int:
    try:
        saved = torch.load(folder / "state", weights_only=True)
    except FileNotFoundError:
        return 0
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    return int(saved["step"])


def save(folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    whole = folder / "state.tmp"
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, whole)
    whole.rename(folder / "state")


if __name__ == "__main__":
    main()
