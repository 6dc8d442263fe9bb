"""A plain torch loop, as it stands in many repositories."""

import torch
from text import Characters, Decoder, loss_of
from torch.utils.data import DataLoader

torch.manual_seed(0)
data = Characters()
model = Decoder()
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=60)
step = 0
while step < 60:
    for ids, targets in DataLoader(data, batch_size=16, shuffle=True, drop_last=True):
        loss = loss_of(model, ids, targets)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        step += 1
        if step == 60:
            break
print(f"trained {step} steps, loss {loss.item():.3f}")
