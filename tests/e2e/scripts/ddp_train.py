"""A plain DDP script, as torchrun starts it: knows nothing of trainctl but the folder for its checkpoints.

Learns y = 2x + 1; saves after every step and goes on from there when it is started again. Each rank appends what it saw
of its environment to ``seen.jsonl`` in that folder. With ``--behave`` it fails or hangs on purpose, once.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--pause", type=float, default=0.02)
    parser.add_argument("--behave", default="", help="exit:RANK:STEP:CODE[:TIMES] or hang:RANK:STEP or mute:RANK:STEP")
    parser.add_argument("--beat", action="store_true")
    options = parser.parse_args()
    folder = Path(os.environ["TRAINCTL_WORKDIR"])
    dist.init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    assert (rank, size) == (int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    note(folder, rank)
    torch.manual_seed(0)
    model = DistributedDataParallel(torch.nn.Linear(1, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    first = load(folder, model, optimizer)
    print(f"rank {rank} of {size} begins with step {first}", flush=True)
    for step in range(first, options.steps):
        behave(options.behave, folder, rank, step)
        if options.beat:
            Path(os.environ["TRAINCTL_HEARTBEAT_FILE"]).touch()
        x = torch.rand(8, 1, generator=torch.Generator().manual_seed(step * size + rank))
        loss = ((model(x) - (2 * x + 1)) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if rank == 0:
            save(folder, model, optimizer, step + 1)
            print(f"step {step + 1} loss {loss.item():.4f}", flush=True)
        time.sleep(options.pause)
    dist.destroy_process_group()


def note(folder: Path, rank: int) -> None:
    names = ("LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "NODE_RANK", "TORCHELASTIC_RESTART_COUNT")
    seen = {name: int(os.environ[name]) for name in names}
    seen |= {"RANK": rank, "generation": int(os.environ["TRAINCTL_GENERATION"]), "pid": os.getpid()}
    with (folder / "seen.jsonl").open("a") as file:
        file.write(json.dumps(seen) + "\n")


def behave(wish: str, folder: Path, rank: int, step: int) -> None:
    if not wish:
        return
    kind, at_rank, at_step, *more = wish.split(":")
    if (rank, step) != (int(at_rank), int(at_step)):
        return
    times = int(more[1]) if len(more) > 1 else 1
    marks = [folder / f"mark-{number}" for number in range(times)]
    mark = next((mark for mark in marks if not mark.exists()), None)
    if mark is None:
        return
    mark.touch()
    print(f"rank {rank} does as it was told: {wish}", flush=True)
    if kind == "exit":
        sys.exit(int(more[0]))
    while True:  # hangs, also against SIGTERM
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.pause()


def load(folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> int:
    try:
        saved = torch.load(folder / "state.pt", weights_only=True)
    except FileNotFoundError:
        return 0
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    return int(saved["step"])


def save(folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    whole = folder / "state.tmp"
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, whole)
    whole.rename(folder / "state.pt")


if __name__ == "__main__":
    main()
