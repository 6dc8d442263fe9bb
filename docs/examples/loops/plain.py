"""A plain torch loop under a session: elastic, exact, and on after whatever dies."""

import torch
from text import Characters, Decoder, loss_of

from trainctl.parallel.session import BatchSpec, Session

torch.manual_seed(0)
data = Characters()
model = Decoder()
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=60)
session = Session.open()
session.register(model=model, optimizer=optimizer, schedulers=[scheduler])
session.set_data(num_samples=len(data), steps=60, batch=BatchSpec(sequences=16, micro_batches=4), seed=0, clip_norm=1.0)
while not session.done:
    with session.step() as step:
        for ids, targets in step.batches(data):
            loss = loss_of(model, ids, targets, reduction="sum")
            step.backward(loss, targets.numel())
print(f"trained {session.applied_step} steps")
