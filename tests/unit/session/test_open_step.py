"""A step whose outcome is known when the ranks are called away: a recovery finishes it as a step is always finished.

Without this, who dies in the middle of that update would not be seen as lost, and a skip there would be told to nobody.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from trainctl.core.records.generation import Rung
from trainctl.core.records.step import Phase
from trainctl.core.records.train_spec import BatchSpec
from trainctl.core.records.worker import Instruction
from trainctl.parallel.bridge import Noticed, Reported, WorkerMessage
from trainctl.parallel.collectives.wait import Interrupted
from trainctl.parallel.session import Session
from trainctl.parallel.session.control import NoControl, NoPage
from trainctl.parallel.session.whereabouts import Whereabouts

STEP = 2


class Recalling(NoControl):
    """Calls for generation 2, and commits it by what the worker reports."""

    def __init__(self) -> None:
        super().__init__()
        self.notices: list[str] = []

    def recall(self) -> None:
        self._tell(replace(self._desired, instruction=Instruction.PREPARE, generation=2))

    def send(self, message: WorkerMessage) -> None:
        super().send(message)
        if isinstance(message, Noticed):
            self.notices.append(message.text)
        if isinstance(message, Reported) and message.report.voted is not None:
            outcome, first = message.report.voted, self._desired.record
            assert first is not None
            record = replace(
                first,
                generation=2,
                predecessor=1,
                target_step=outcome.step,
                outcome=outcome,
                rung=Rung.PEER,
                holders=(0,),
            )
            self._tell(replace(self._desired, instruction=Instruction.RUN, record=record))


class Page(NoPage):
    def __init__(self) -> None:
        self.shown: list[tuple[int, int, Phase]] = []

    def phase(self, generation: int, step: int, phase: Phase) -> None:
        self.shown.append((generation, step, phase))


def train(control: NoControl, page: Page, *, skipped: int = 0) -> list[torch.Tensor]:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    session = Session.open(control=control, page=page)
    session.register(model=model, optimizer=torch.optim.AdamW(model.parameters(), lr=0.1))
    session.set_data(num_samples=12, steps=3, batch=BatchSpec(sequences=4, micro_batches=2), seed=3)
    while not session.done:
        with session.step() as step:
            for micro_batch in step.micro_batches():
                rows = torch.tensor(micro_batch.sample_ids, dtype=torch.float32).view(-1, 1).expand(-1, 3)
                loss = model(rows).square().sum()
                step.backward(loss * math.nan if step.step == skipped else loss, len(micro_batch.sample_ids))
    return list(model.parameters())


@pytest.mark.parametrize("skipped", [0, STEP])
def test_a_recovery_finishes_it_as_a_step_is_always_finished(monkeypatch: pytest.MonkeyPatch, skipped: int) -> None:
    undisturbed = train(NoControl(), Page(), skipped=skipped)
    control, page = Recalling(), Page()
    points: list[tuple[int, str]] = []
    reach = Whereabouts.reach

    def reached(where: Whereabouts, point: str) -> None:
        reach(where, point)
        if where.step == STEP:
            points.append((where.generation, point))
        if (where.generation, where.step, point) == (1, STEP, "vote.after"):
            control.recall()
            raise Interrupted

    monkeypatch.setattr(Whereabouts, "reach", reached)
    found = train(control, page, skipped=skipped)
    assert all(torch.equal(a, b) for a, b in zip(found, undisturbed, strict=True))
    assert [point for point in points if point[0] == 2] == [(2, "rebuild.in"), (2, "apply.in"), (2, "apply.after")]
    entered = [phase for generation, step, phase in page.shown if (generation, step) == (2, STEP)]
    in_between = [Phase.APPLYING, Phase.APPLIED, Phase.RESTORE]
    assert entered[:5] == [Phase.REBUILD, Phase.RESTORE, *in_between]
    assert (f"step {STEP} is skipped" in "".join(control.notices)) == bool(skipped)
