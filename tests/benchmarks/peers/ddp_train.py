"""The plain loop that people write: torch DDP, gradient accumulation, clipping, AdamW; optionally checkpoints.

Runs under ``torchrun``. Arguments: workload JSON, step log, steps, checkpoint file, checkpoint interval (0: none).
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

sys.path.insert(0, str(Path(__file__).parents[2]))
from benchmarks.workload import StepLog, Workload, loss_of


def save(path: Path, step: int, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    temporary = path.with_suffix(".tmp")
    torch.save({"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()}, temporary)
    os.replace(temporary, path)


def restore(path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> int:
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])


def main() -> None:
    workload = Workload(**json.loads(sys.argv[1]))
    log, steps = StepLog(Path(sys.argv[2])), int(sys.argv[3])
    checkpoint, interval = Path(sys.argv[4] or "."), int(sys.argv[5])
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, world_size = dist.get_rank(), dist.get_world_size()
    model, optimizer = workload.build()
    done = restore(checkpoint, model, optimizer) if interval else 0
    ddp = DistributedDataParallel(model)
    for step, batches in zip(range(done + 1, steps + 1), workload.batches(rank, world_size), strict=False):
        for index, tokens in enumerate(batches):
            with nullcontext() if index == len(batches) - 1 else ddp.no_sync():
                torch.autograd.backward(loss_of(ddp, tokens) / len(batches))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        if rank == 0:
            log.committed(step)
            if interval and step % interval == 0:
                save(checkpoint, step, model, optimizer)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
