"""Without it the built-in loop could learn nothing, or something else each time, and all would look well."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from trainctl.core.records.train_spec import BatchSpec, EvalSpec, ModelSpec, OptimizerSpec, ScheduleSpec, TrainDataSpec
from trainctl.core.records.train_spec import TrainSpec as Spec
from trainctl.parallel.loop import train
from trainctl.parallel.plan.micro_batches import MicroBatch, micro_batches_of_step
from trainctl.parallel.plan.sample_order import Order


class FakeStep:
    """One step of a single process; computes its micro-batches in the given order."""

    def __init__(self, micro_batches: list[MicroBatch]) -> None:
        self._micro_batches = micro_batches
        self.loss_sum = 0.0
        self.tokens = 0

    def micro_batches(self) -> Iterator[MicroBatch]:
        for micro_batch in self._micro_batches:
            torch.manual_seed(micro_batch.seed)
            yield micro_batch

    def upcoming(self) -> Iterator[MicroBatch]:
        return iter(self._micro_batches)

    def while_waiting(self, waited_s: float) -> None:
        assert waited_s < 60

    def backward(self, loss_sum: Tensor, tokens: int) -> None:
        loss_sum.backward()  # type: ignore[no-untyped-call]
        self.loss_sum += loss_sum.item()
        self.tokens += tokens


class FakeSession:
    """What the loop sees of a session, for one process that never fails."""

    def __init__(self, *, backwards: bool = False) -> None:
        self.step_done = 0
        self.losses: list[float] = []
        self.eval_losses: list[float] = []
        self._backwards = backwards

    def register(
        self,
        *,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        objects: Mapping[str, Any],
        artifacts: Mapping[str, bytes],
    ) -> None:
        self.model, self._optimizer, self.objects, self.artifacts = model, optimizer, objects, artifacts

    def set_data(
        self,
        *,
        num_samples: int,
        steps: int,
        batch: BatchSpec,
        seed: int,
        schedule: Callable[[int], float],
        clip_norm: float,
        order: Order,
    ) -> None:
        assert num_samples > 0
        self._order, self._steps, self._batch, self._seed = order, steps, batch, seed
        self._schedule, self._clip_norm = schedule, clip_norm

    def on_evaluate(self, *, every: int, num_items: int, evaluate: Callable[[int], tuple[Tensor, int]]) -> None:
        self._every, self._num_items, self._evaluate = every, num_items, evaluate

    @property
    def done(self) -> bool:
        return self.step_done == self._steps

    @contextmanager
    def step(self) -> Iterator[FakeStep]:
        number, cursor = self.step_done + 1, self.step_done * self._batch.sequences
        own = micro_batches_of_step(self._order, self._batch, step=number, cursor=cursor, seed=self._seed)
        step = FakeStep(list(reversed(own)) if self._backwards else list(own))
        yield step
        for parameter in self.model.parameters():
            assert parameter.grad is not None
            parameter.grad /= step.tokens
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self._clip_norm)
        for group in self._optimizer.param_groups:
            group["lr"] = self._schedule(number)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self.step_done = number
        self.losses.append(step.loss_sum / step.tokens)
        if number % self._every == 0:
            results = [self._evaluate(item) for item in range(self._num_items)]
            self.eval_losses.append(sum(float(loss) for loss, _ in results) / sum(tokens for _, tokens in results))


@pytest.fixture
def spec(tmp_path: Path) -> Spec:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for index in range(4):
        (folder / f"{index}.txt").write_text("the quick brown fox jumps over the lazy dog\n" * 60)
    return Spec(
        model=ModelSpec(layers=2, hidden=32, heads=4, context=32),
        data=TrainDataSpec(uri=str(folder), hold_out_every=4),
        optimizer=OptimizerSpec(lr=1e-2),
        schedule=ScheduleSpec(warmup_steps=5),
        steps=40,
        batch=BatchSpec(sequences=8, micro_batches=4),
        eval=EvalSpec(every=20, sequences=8),
    )


def _train(spec: Spec, tmp_path: Path, *, backwards: bool = False) -> FakeSession:
    session = FakeSession(backwards=backwards)
    train(cast("Any", session), spec, str(tmp_path / "cache"))
    return session


def test_it_learns(spec: Spec, tmp_path: Path) -> None:
    session = _train(spec, tmp_path)
    assert session.step_done == 40
    assert session.losses[0] == pytest.approx(5.55, abs=0.1)  # ln 256: it knows nothing yet
    assert session.losses[-1] < 2.0
    assert session.eval_losses[1] < session.eval_losses[0]
    assert set(session.artifacts) == {
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert session.objects["data"].state_dict()["digest"]


def test_it_is_the_same_every_time(spec: Spec, tmp_path: Path) -> None:
    short = replace(spec, steps=5)
    assert _train(short, tmp_path).losses == _train(short, tmp_path).losses


def test_dropout_does_not_depend_on_the_order_of_micro_batches(spec: Spec, tmp_path: Path) -> None:
    dropped = replace(spec, steps=3, precision="float64", model=replace(spec.model, dropout=0.2))
    forwards, backwards = _train(dropped, tmp_path), _train(dropped, tmp_path, backwards=True)
    assert forwards.losses == pytest.approx(backwards.losses, rel=1e-10)
    without = _train(replace(dropped, model=replace(spec.model, dropout=0.0)), tmp_path)
    assert forwards.losses != pytest.approx(without.losses, rel=1e-3)
