"""A small decoder, sharded by FSDP2."""

import torch
import torch.distributed as dist
from text import Characters, Decoder, loss_of
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader, DistributedSampler

torch.manual_seed(0)
data = Characters()


def build(mesh: DeviceMesh):
    model = Decoder()
    for block in model.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model, torch.optim.AdamW(model.parameters(), lr=3e-3)


dist.init_process_group("gloo")
ranks = dist.get_world_size()
model, optimizer = build(dist.init_device_mesh("cpu", (ranks,)))
loader = DataLoader(data, batch_size=16 // ranks, sampler=DistributedSampler(data), drop_last=True)
batches = iter(loader)
for _ in range(60):
    ids, targets = next(batches)
    optimizer.zero_grad()
    loss = loss_of(model, ids, targets)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
print("trained 60 steps")
dist.destroy_process_group()
