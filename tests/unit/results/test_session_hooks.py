"""Hooks hang on the session: a loop of the user's own gets them, without a job file too.

Without it a loop of one's own would leave no records.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from trainctl.core.errors import PreconditionError
from trainctl.core.records.step import StepFigures
from trainctl.core.records.train_spec import BatchSpec
from trainctl.parallel.results import Hook, Run, RunEnd
from trainctl.parallel.session import Session


def test_a_loop_of_ones_own_tells_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Any] = []

    class Heard(Hook):
        def on_start(self, run: Run) -> None:
            heard.append((run.steps, run.step, run.records))

        def on_step(self, figures: StepFigures) -> None:
            heard.append(figures.step)

        def on_evaluate(self, figures: StepFigures) -> None:
            heard.append(figures.eval_loss)

        def on_end(self, end: RunEnd) -> None:
            heard.append((end.step, end.reason))

    model = nn.Linear(3, 2).double()
    session = Session.open()
    session.add_hook(Heard)
    session.register(model=model, optimizer=torch.optim.AdamW(model.parameters(), lr=0.0))
    session.set_data(
        num_samples=9, steps=4, batch=BatchSpec(sequences=4, micro_batches=2), seed=1, schedule=lambda step: 0.1
    )
    session.on_evaluate(every=2, num_items=1, evaluate=lambda item: (3.0, 2))
    while not session.done:
        with session.step() as step:
            for micro_batch in step.micro_batches():
                rows = torch.ones(len(micro_batch.sample_ids), 3, dtype=torch.float64)
                step.backward(model(rows).square().sum(), 2 * len(rows))
    assert heard == [(4, 0, ""), 1, 2, 1.5, 3, 4, 1.5, (4, "finished")]
    with pytest.raises(PreconditionError, match="after the first step"):
        session.add_hook(Heard)
