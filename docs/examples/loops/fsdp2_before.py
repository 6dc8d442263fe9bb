"""FSDP2 in a plain loop, started by torchrun."""

import torch
import torch.distributed as dist
from text import Characters, Decoder, loss_of
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader, DistributedSampler

data = Characters()


def build(mesh: DeviceMesh):
    model = Decoder()
    for block in model.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model, torch.optim.AdamW(model.parameters(), lr=3e-3)


dist.init_process_group("gloo")
ranks = dist.get_world_size()
torch.manual_seed(0)
model, optimizer = build(init_device_mesh("cpu", (ranks,)))
step = 0
while step < 60:
    sampler = DistributedSampler(data, shuffle=True, drop_last=True)
    for ids, targets in DataLoader(data, batch_size=16 // ranks, sampler=sampler, drop_last=True):
        loss = loss_of(model, ids, targets)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step == 60:
            break
print(f"trained {step} steps, loss {loss.item():.3f}")
dist.destroy_process_group()
