"""A session whose steps take a quarter of a second and next to no CPU: what a running job says, without its work."""

from __future__ import annotations

import time

import torch
from torch import nn
from torch.utils.data import TensorDataset

from trainctl.parallel.session import BatchSpec, Session

STEP_S = 0.25
ENDLESS = 100_000


def main() -> None:
    torch.manual_seed(0)
    model = nn.Linear(8, 1)
    session = Session.open()
    session.register(model=model, optimizer=torch.optim.AdamW(model.parameters(), lr=1e-3))
    rows = TensorDataset(torch.randn(64, 8), torch.zeros(64, 1))
    batch = BatchSpec(sequences=4, micro_batches=4)
    session.set_data(num_samples=len(rows), steps=ENDLESS, batch=batch, seed=0)
    while not session.done:
        with session.step() as step:
            for inputs, targets in step.batches(rows):
                loss = (model(inputs) - targets).square().sum()
                step.backward(loss, targets.numel())
            time.sleep(STEP_S)


main()
