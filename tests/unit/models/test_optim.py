from __future__ import annotations

import pytest
import torch

from trainctl.core.errors import SpecError
from trainctl.core.records.train_spec import ModelSpec, OptimizerSpec
from trainctl.parallel.models.llama import Llama
from trainctl.parallel.optim import build_optimizer

TINY = ModelSpec(layers=1, hidden=32, heads=4, context=16)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_matrices_decay_and_norms_do_not(dtype: torch.dtype) -> None:
    model = Llama(TINY, vocab_size=64, seed=0, dtype=dtype)
    optimizer = build_optimizer(model, OptimizerSpec(lr=1.0, weight_decay=0.25))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        expected = before[name] * (1.0 if "norm" in name else 0.75)
        torch.testing.assert_close(parameter.detach(), expected)


def test_groups_name_every_parameter_once_in_the_models_order() -> None:
    model = Llama(TINY, vocab_size=64, seed=0)
    optimizer = build_optimizer(model, OptimizerSpec())
    decayed, others = (group["param_names"] for group in optimizer.param_groups)
    names = [name for name, _ in model.named_parameters()]
    assert sorted([*decayed, *others]) == sorted(names)
    assert decayed == [name for name in names if "norm" not in name]
    assert optimizer.param_groups[0]["fused"]


def test_another_optimizer_is_refused() -> None:
    with pytest.raises(SpecError, match="expected adamw, found 'sgd'"):
        build_optimizer(Llama(TINY, vocab_size=64, seed=0), OptimizerSpec(name="sgd"))
