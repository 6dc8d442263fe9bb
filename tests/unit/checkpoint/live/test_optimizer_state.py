"""Without it a job could go on from a checkpoint with other moments than it had, and nobody would see why."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

from trainctl.checkpoint.engine import load
from trainctl.checkpoint.layout.key import StateVersion
from trainctl.checkpoint.live.optimizer_state import OptimizerState
from trainctl.checkpoint.live.state import LocalState, state_of
from trainctl.checkpoint.save.description import schema_digest
from trainctl.core.errors import PlanError
from unit.checkpoint.ranks import attempt, save

Make = Callable[[Iterable[torch.Tensor]], torch.optim.Optimizer]
OPTIMIZERS: dict[str, Make] = {
    "adadelta": lambda p: torch.optim.Adadelta(p, lr=0.1),
    "adafactor": lambda p: torch.optim.Adafactor(p, lr=0.1),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1, initial_accumulator_value=0.5),
    "adam": lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.1),
    "adamax": lambda p: torch.optim.Adamax(p, lr=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1),
    "adamw amsgrad": lambda p: torch.optim.AdamW(p, lr=0.1, amsgrad=True),
    "adamw foreach": lambda p: torch.optim.AdamW(p, lr=0.1, foreach=True),
    "adamw fused": lambda p: torch.optim.AdamW(p, lr=0.1, fused=True),
    "asgd": lambda p: torch.optim.ASGD(p, lr=0.1, t0=1),
    "muon": lambda p: torch.optim.Muon([t for t in p if t.dim() == 2], lr=0.1),
    "nadam": lambda p: torch.optim.NAdam(p, lr=0.1),
    "radam": lambda p: torch.optim.RAdam(p, lr=0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.1, momentum=0.5, centered=True),
    "rprop": lambda p: torch.optim.Rprop(p, lr=0.1),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "sgd dampened": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.5, weight_decay=0.1),
    "sgd fused": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, fused=True),
}


class Counting(torch.optim.Optimizer):
    """Signed momentum with a host-side counter in its state and a running sum in its groups; as schedule-free ones."""

    def __init__(self, params: Iterable[torch.Tensor], lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr, "weight_sum": 0.0, "warm": True})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                if not state:
                    state.update(count=0, scale=1.0, mark=None, mean=parameter.grad.clone())
                state["count"] += 1
                state["scale"] *= 0.9
                state["mean"].lerp_(parameter.grad, 1 / state["count"])
                parameter.data.add_(state["mean"].sign(), alpha=-group["lr"] * state["scale"])
            group["weight_sum"] += group["lr"] / 3
            group["warm"] = False


EVERY = {**OPTIMIZERS, "a user's": Counting}


class Net(nn.Module):
    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.inner = nn.Linear(5, 7)
        self.outer = nn.Linear(7, 3)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.outer(self.inner(x).tanh()) * self.scale
        return y


class Rank:
    """A model, its optimizer and that one's state."""

    def __init__(self, make: Make, seed: int = 0) -> None:
        self.model = Net(seed)
        self.optimizer = make(list(self.model.parameters()))
        self.state = OptimizerState(self.optimizer)

    def train(self, steps: range) -> None:
        for step in steps:
            gradients(self.model, step)
            self.state.step()

    def tensors(self) -> LocalState:
        self.state.check()
        return state_of(self.model, [self.optimizer], instance="island-0", version=StateVersion(1, 3))


def gradients(model: nn.Module, step: int) -> None:
    model.zero_grad()
    rows = torch.randn(4, 5, generator=torch.Generator().manual_seed(step))
    model(rows).square().sum().backward()


def same(a: LocalState, b: LocalState) -> None:
    assert [t.key for t in a.tensors] == [t.key for t in b.tensors]
    for one, other in zip(a.tensors, b.tensors, strict=True):
        assert torch.equal(one.tensor, other.tensor), one.key


@pytest.mark.parametrize("name", EVERY)
def test_training_goes_on_as_if_nobody_had_looked(name: str) -> None:
    plain = Net(0)
    optimizer = EVERY[name](list(plain.parameters()))
    watched = Rank(EVERY[name])
    first = schema_digest(watched.tensors())
    for step in range(4):
        gradients(plain, step)
        optimizer.step()
    watched.train(range(4))
    for (key, a), b in zip(plain.named_parameters(), watched.model.parameters(), strict=True):
        assert torch.equal(a, b), key
    for (_, theirs), (_, ours) in zip(optimizer.state.items(), watched.optimizer.state.items(), strict=True):
        assert theirs.keys() == ours.keys()
        for kind, value in theirs.items():
            assert torch.equal(value, ours[kind]) if isinstance(value, torch.Tensor) else value == ours[kind]
    assert schema_digest(watched.tensors()) == first, "the state has its names and shapes from the start"


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("steps", [0, 1, 3])
def test_a_copy_from_a_peer_goes_on_to_the_bit(name: str, steps: int) -> None:
    holder, joiner = Rank(EVERY[name]), Rank(EVERY[name], seed=1)
    joiner.train(range(steps % 2))  # one that had a life before, in one case
    holder.train(range(steps))
    for source, target in zip(holder.tensors().tensors, joiner.tensors().tensors, strict=True):
        assert source.key == target.key
        target.tensor.data.copy_(source.tensor)
    joiner.state.load(json.loads(json.dumps(holder.state.export())))
    for rank in (holder, joiner):
        rank.train(range(steps, steps + 3))
    same(holder.tensors(), joiner.tensors())
    assert holder.state.export() == joiner.state.export()


@pytest.mark.parametrize("name", EVERY)
def test_a_resumed_run_equals_an_uninterrupted_one(name: str, tmp_path: Path) -> None:
    whole, resumed = Rank(EVERY[name]), Rank(EVERY[name], seed=1)
    whole.train(range(3))
    ref = save(tmp_path, {t.key: t.tensor.detach().clone() for t in whole.tensors().tensors}, of=attempt(3))
    exported = json.loads(json.dumps(whole.state.export()))
    load(ref, resumed.tensors())
    resumed.state.load(exported)
    for rank in (whole, resumed):
        rank.train(range(3, 6))
    same(whole.tensors(), resumed.tensors())


def test_parameters_gradients_and_hooks_see_nothing_of_the_trial() -> None:
    model = Net(0)
    gradients(model, 0)
    before = [(p.detach().clone(), p.grad) for p in model.parameters()]
    optimizer = torch.optim.AdamW(model.parameters())
    calls: list[int] = []
    optimizer.register_step_post_hook(lambda *_: calls.append(1))
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)  # replaces optimizer.step by one that counts
    state = OptimizerState(optimizer)
    for parameter, (value, grad) in zip(model.parameters(), before, strict=True):
        assert torch.equal(parameter, value)
        assert parameter.grad is grad
    assert not calls
    state.step()
    scheduler.step()
    assert calls == [1]


def test_frozen_parameters_have_no_state() -> None:
    model = Net(0)
    model.inner.requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    OptimizerState(optimizer)
    assert set(optimizer.state) == {model.outer.weight, model.outer.bias, model.scale}


def test_options_of_the_job_file_are_not_overwritten_by_a_checkpoint() -> None:
    old = Rank(lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.1))
    new = Rank(lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.3))
    old.train(range(2))
    new.state.load(old.state.export())
    assert new.optimizer.param_groups[0]["weight_decay"] == 0.3


class Hidden(torch.optim.SGD):
    """Counts where nobody looks."""

    calls = again = 0

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.calls += 1
        self.again += 1
        super().step()


class Pair(torch.optim.Optimizer):
    """Leaves the work to another optimizer, whose state nobody sees."""

    def __init__(self, params: Iterable[torch.Tensor]) -> None:
        super().__init__(params, {"lr": 0.1})
        self.inner = torch.optim.Adam(self.param_groups[0]["params"])

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.inner.step()


class Lists(torch.optim.SGD):
    """Keeps a list."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.state[self.param_groups[0]["params"][0]]["history"] = [1]
        self.state[self.param_groups[0]["params"][1]]["seen"] = {1}


class Numbers(torch.optim.SGD):
    """Names what it keeps with numbers, and not all of it."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.state[self.param_groups[0]["params"][0]].update({1: torch.zeros(1), "slow": torch.zeros(1)})


class Global(torch.optim.SGD):
    """Keeps a state of no parameter."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.state["all"]["k"] = 1  # type: ignore[index]


class Late(torch.optim.SGD):
    """Makes state in its second step."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for parameter in self.param_groups[0]["params"]:
            if self.state[parameter]:
                self.state[parameter]["slow"] = parameter.clone()
            self.state[parameter]["k"] = 1


@pytest.mark.parametrize(
    ("optimizer", "match"),
    [
        (torch.optim.LBFGS, "LBFGS, which evaluates the loss again"),
        (torch.optim.SparseAdam, "SparseAdam: a trial step with zero gradients raised RuntimeError"),
        (Hidden, "Hidden keeps what it learns in its attributes again, calls, where"),
        (Pair, "Pair keeps what it learns in its attribute inner"),
        (Lists, "found list in 'history', set in 'seen'"),
        (Numbers, "expected texts as names of what it keeps of a parameter, found 1"),
        (Global, "belongs to no trained parameter"),
    ],
)
def test_what_cannot_be_carried_is_refused(optimizer: Any, match: str) -> None:
    with pytest.raises(PlanError, match=match) as caught:
        OptimizerState(optimizer(list(Net(0).parameters())))
    assert caught.value.hint


class Betas(NamedTuple):
    first: float
    second: float


def test_options_with_names_of_their_own_are_kept_as_what_they_hold() -> None:
    optimizer = torch.optim.Adam(Net(0).parameters(), betas=Betas(0.5, 0.75))
    (group,) = OptimizerState(optimizer).export(settings=True)["options"]
    assert group["betas"] == (0.5, 0.75)
    assert type(group["betas"]) is tuple


def test_state_that_comes_late_is_found() -> None:
    rank = Rank(Late)
    rank.train(range(1))
    rank.tensors()
    rank.train(range(1, 2))
    with pytest.raises(PlanError, match="Late: expected the state to keep its shape, found 'slow'"):
        rank.tensors()


def test_the_state_of_another_optimizer_is_refused() -> None:
    small = torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=0.1, momentum=0.9)
    with pytest.raises(PlanError, match=r"of 5 parameters in 1 groups, found one of 5 in 0"):
        Rank(OPTIMIZERS["sgd"]).state.load({"started": True, "numbers": [], "options": []})
    state = OptimizerState(small)
    counted = Rank(Counting)
    counted.train(range(1))
    with pytest.raises(PlanError, match=r"of 1 parameters in 1 groups, found one of 5 in 1"):
        state.load(counted.state.export())
