"""What is registered beside the tensors belongs to a step: repeated steps, and changes in the wrong place.

Without it a repeated step could count twice in a metric or a loader's position.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from trainctl.core.records.train_spec import BatchSpec
from trainctl.parallel.session import Session

STEPS = 4


class Counter:
    def __init__(self) -> None:
        self.seen: list[int] = []

    def state_dict(self) -> dict[str, list[int]]:
        return {"seen": self.seen}

    def load_state_dict(self, state: dict[str, list[int]]) -> None:
        self.seen = state["seen"]


class Run:
    """A session of one, what it registered, and what it told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, model: nn.Module) -> None:
        self.told: list[str] = []
        monkeypatch.setattr(Session, "notice", lambda _, text: self.told.append(text))
        self.model, self.counter = model, Counter()
        self.average = copy.deepcopy(model).requires_grad_(False)
        self.after: list[int] = []
        self.session = Session.open()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        self.schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
        self.session.register(
            model=model,
            optimizer=optimizer,
            schedulers=[self.schedule],
            modules={"average": self.average},
            objects={"counter": self.counter},
            after_step=self.after_step,
        )
        self.session.set_data(num_samples=16, steps=STEPS, batch=BatchSpec(sequences=4, micro_batches=2), seed=0)

    def after_step(self, step: int) -> None:
        self.after.append(step)
        self.move_average()

    def move_average(self) -> None:
        for mean, value in zip(self.average.parameters(), self.model.parameters(), strict=True):
            mean.lerp_(value.detach(), 0.5)

    def train(self, inside: Callable[[int], None], between: Callable[[], None] = lambda: None) -> None:
        while not self.session.done:
            with self.session.step() as step:
                for micro_batch in step.micro_batches():
                    step.backward(self.model(torch.ones(len(micro_batch.sample_ids), 3)).sum(), 2)
                inside(step.step)
            between()


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(3, 2)


def test_what_a_step_changed_is_taken_back_when_it_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch, linear())
    failed: list[int] = []

    def inside(step: int) -> None:
        run.counter.seen.append(step)
        if step == 3 and not failed:
            failed.append(step)
            run.schedule.step()  # nothing of this may stay either
            raise KeyError("once")

    with pytest.raises(KeyError):
        run.train(inside)
    assert run.counter.seen == [1, 2]
    assert run.schedule.get_last_lr() == [0.1 * 0.5**2]
    run.train(inside)
    assert run.counter.seen == run.after == [1, 2, 3, 4]
    assert len(run.told) == 1  # that the loop caught what left the step
    assert "KeyError" in run.told[0]


def test_changes_between_steps_are_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch, linear())

    def between() -> None:
        run.counter.seen.append(0)
        run.move_average()

    run.train(lambda _: None, between)
    first, second = run.told
    assert first.startswith("'counter' was changed between two steps")
    assert second.startswith("'average' was changed between two steps")


def test_a_module_that_changes_inside_a_step_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch, linear())
    run.train(lambda _: run.move_average())
    (told,) = run.told
    assert told.startswith("module 'average' was changed inside")
    assert "register(after_step=...)" in told


def test_running_statistics_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch, nn.Sequential(linear(), nn.BatchNorm1d(2)))
    run.train(lambda _: None)
    (told,) = run.told
    assert "BatchNorm" in told


def test_a_right_loop_is_told_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch, nn.Sequential(linear(), nn.LayerNorm(2)))
    run.train(lambda step: run.counter.seen.append(step))
    assert run.told == []
    assert run.counter.seen == list(range(1, STEPS + 1))
