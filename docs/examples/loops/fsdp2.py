"""A small decoder, sharded by FSDP2; under a session it is built anew over whichever ranks there are."""

import torch
from text import Characters, Decoder, loss_of
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard

from trainctl.parallel.session import BatchSpec, Session, TrainingState

torch.manual_seed(0)
data = Characters()


def build(mesh: DeviceMesh):
    model = Decoder()
    for block in model.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return TrainingState(model=model, optimizers=[torch.optim.AdamW(model.parameters(), lr=3e-3)])


session = Session.open()
session.register_sharded(build)
session.set_data(num_samples=len(data), steps=60, batch=BatchSpec(sequences=16, micro_batches=4), seed=0, clip_norm=1.0)
while not session.done:
    with session.step() as step:
        for ids, targets in step.batches(data):
            loss = loss_of(session.model, ids, targets, reduction="sum")
            step.backward(loss, targets.numel())
print("trained 60 steps")
