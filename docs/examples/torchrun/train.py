"""A DDP script for torchrun: fits a line, saves after every epoch, goes on from there when it is started again."""

import argparse
import os
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=3)
options = parser.parse_args()

dist.init_process_group("gloo")
rank, size = dist.get_rank(), dist.get_world_size()
torch.manual_seed(0)
model = DistributedDataParallel(torch.nn.Linear(1, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.3)

saved = Path(os.environ.get("TRAINCTL_WORKDIR", ".")) / "line.pt"
first = 0
if saved.exists():
    state = torch.load(saved, weights_only=True)
    model.load_state_dict(state["model"])
    first = state["epoch"]

for epoch in range(first, options.epochs):
    for step in range(20):
        x = torch.rand(16, 1, generator=torch.Generator().manual_seed((epoch * 20 + step) * size + rank))
        loss = ((model(x) - (2 * x + 1)) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if rank == 0:
        torch.save({"model": model.state_dict(), "epoch": epoch + 1}, saved.with_suffix(".tmp"))
        saved.with_suffix(".tmp").replace(saved)
        print(f"epoch {epoch + 1} on {size} ranks: loss {loss.item():.4f}")
dist.destroy_process_group()
