"""Without it norms could be decayed, options of the job file not reach the optimizer, or its groups change order."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from trainctl.checkpoint.live.optimizer_state import OptimizerState
from trainctl.core.errors import Problem, SpecError
from trainctl.core.records.train_spec import ModelSpec, OptimizerSpec
from trainctl.parallel.models.llama import Llama
from trainctl.parallel.optim import build_optimizer
from trainctl.parallel.plan.optimizer_rules import REFUSED, TORCH_OPTIMIZERS, optimizer_problems

TINY = ModelSpec(layers=1, hidden=32, heads=4, context=16)
HERE = "unit.models.test_optim"


def tiny(dtype: torch.dtype = torch.float32) -> Llama:
    return Llama(TINY, vocab_size=64, seed=0, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_matrices_decay_and_norms_do_not(dtype: torch.dtype) -> None:
    model = tiny(dtype)
    optimizer = build_optimizer(model, OptimizerSpec(lr=1.0, weight_decay=0.25))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        expected = before[name] * (1.0 if "norm" in name else 0.75)
        torch.testing.assert_close(parameter.detach(), expected)


def test_groups_name_every_parameter_once_in_the_models_order() -> None:
    model = tiny()
    optimizer = build_optimizer(model, OptimizerSpec())
    decayed, others = (group["param_names"] for group in optimizer.param_groups)
    names = [name for name, _ in model.named_parameters()]
    assert sorted([*decayed, *others]) == sorted(names)
    assert decayed == [name for name in names if "norm" not in name]
    assert optimizer.param_groups[0]["fused"]


def test_every_optimizer_of_torch_is_known_or_refused() -> None:
    theirs = {
        name.lower()
        for name, found in vars(torch.optim).items()
        if isinstance(found, type) and issubclass(found, torch.optim.Optimizer) and found is not torch.optim.Optimizer
    }
    assert theirs == {*TORCH_OPTIMIZERS, *REFUSED}


@pytest.mark.parametrize("name", TORCH_OPTIMIZERS)
def test_every_one_can_be_built_and_carried(name: str) -> None:
    model: nn.Module = nn.Linear(4, 4, bias=False) if name == "muon" else tiny()
    optimizer = build_optimizer(model, OptimizerSpec(name=name, lr=0.01))
    assert type(optimizer).__name__ == TORCH_OPTIMIZERS[name]
    assert optimizer.param_groups[0]["lr"] == 0.01
    if name != "rprop":
        assert optimizer.param_groups[0]["weight_decay"] == 0.1
    OptimizerState(optimizer)


def test_options_reach_the_optimizer() -> None:
    sgd = build_optimizer(tiny(), OptimizerSpec(name="sgd", options={"momentum": 0.9, "nesterov": True}))
    assert all(group["momentum"] == 0.9 and group["nesterov"] for group in sgd.param_groups)
    adam = build_optimizer(tiny(), OptimizerSpec(name="adam", betas=(0.8, 0.9), eps=1e-4, options={"amsgrad": True}))
    assert adam.defaults["betas"] == (0.8, 0.9)
    assert adam.defaults["eps"] == 1e-4
    assert adam.defaults["amsgrad"]
    rms = build_optimizer(tiny(), OptimizerSpec(name="rmsprop", options={"eps": 1e-3}))
    assert rms.defaults["eps"] == 1e-3
    assert not build_optimizer(tiny(), OptimizerSpec(options={"foreach": True})).defaults["fused"]


class Signs(torch.optim.Optimizer):
    """A user's own, with the parameters looked at before torch sees them."""

    def __init__(
        self, params: Any, lr: float = 0.1, betas: tuple[float, float] = (0.5, 0.5), shrink: float = 1.0
    ) -> None:
        assert all(isinstance(p, torch.Tensor) for group in params for p in group["params"])
        super().__init__(params, {"lr": lr, "betas": betas, "shrink": shrink})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data.add_(parameter.grad.sign(), alpha=-group["lr"] * group["shrink"])


def no_optimizer(params: Any, lr: float) -> int:
    return 3


number = 3


def test_a_users_own_is_found_by_its_name() -> None:
    optimizer = build_optimizer(tiny(), OptimizerSpec(name=f"{HERE}:Signs", lr=0.5, options={"shrink": 0.25}))
    assert type(optimizer).__name__ == "Signs"
    assert optimizer.defaults == {"lr": 0.5, "betas": (0.9, 0.95), "shrink": 0.25}
    assert len(optimizer.param_groups) == 1


def problem(spec: OptimizerSpec, model: nn.Module | None = None) -> Problem:
    with pytest.raises(SpecError) as caught:
        build_optimizer(model or tiny(), spec)
    (found,) = caught.value.problems
    return found


@pytest.mark.parametrize(
    ("spec", "field", "message"),
    [
        (OptimizerSpec(name="lion"), "name", 'or module:Class, found "lion"'),
        (OptimizerSpec(name="AdamW"), "name", 'found "AdamW"'),
        (OptimizerSpec(name="lbfgs"), "name", "evaluates the loss several times"),
        (OptimizerSpec(name="no.such:Thing"), "name", "no was not found"),
        (OptimizerSpec(name=f"{HERE}:Nothing"), "name", "has no 'Nothing'"),
        (OptimizerSpec(name=f"{HERE}:number"), "name", "expected a class or function, found int"),
        (OptimizerSpec(name=f"{HERE}:no_optimizer"), "name", "found int"),
        (OptimizerSpec(name="sgd", options={"momentun": 0.9}), "options.momentun", 'did you mean "momentum"?'),
        (OptimizerSpec(name="sgd", options={"momentum": -1}), "options", "Invalid momentum value: -1"),
        (OptimizerSpec(name="sgd", options={"lr": 1}), "options.lr", "has a field of its own: spec.train.optimizer.lr"),
        (OptimizerSpec(options={"eps": 1}), "options.eps", "has a field of its own"),
        (OptimizerSpec(name="sgd", betas=(0.1, 0.2)), "betas", "sgd has none; leave it out"),
        (OptimizerSpec(name="rmsprop", eps=1.0), "eps", "write it into spec.train.optimizer.options"),
        (OptimizerSpec(name="rprop", weight_decay=0.2), "weightDecay", "rprop has none"),
        (OptimizerSpec(name="muon"), "options", "only supports 2D parameters"),
    ],
)
def test_what_is_wrong_is_said_with_its_field(spec: OptimizerSpec, field: str, message: str) -> None:
    found = problem(spec)
    assert found.path == f"spec.train.optimizer.{field}"
    assert message in found.message


def test_all_problems_at_once() -> None:
    spec = OptimizerSpec(name="sgd", betas=(0.1, 0.2), eps=1.0, options={"lr": 1, "params": 2})
    assert [p.path.removeprefix("spec.train.optimizer.") for p in optimizer_problems(spec)] == [
        "options.lr",
        "options.params",
        "betas",
        "eps",
    ]
