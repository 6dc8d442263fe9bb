"""Without it a tied or frozen tensor could be saved twice or never, and a resumed run differ from one at a stretch."""

from __future__ import annotations

from pathlib import Path

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

VERSION = StateVersion(1, 3)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("cache", torch.zeros(9), persistent=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.norm(self.embed(tokens)))
        return logits


def made(seed: int = 0) -> tuple[Tied, torch.optim.AdamW]:
    torch.manual_seed(seed)
    model = Tied()
    return model, torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)


def train(model: Tied, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for step in range(steps):
        optimizer.zero_grad()
        model(torch.arange(7)).pow(2).sum().mul(step + 1).backward()
        optimizer.step()


def of(model: nn.Module, optimizer: torch.optim.Optimizer | None) -> LocalState:
    return state_of(model, [optimizer] if optimizer else (), instance="island-0", version=VERSION)


def test_the_state_names_live_tensors_once() -> None:
    model, optimizer = made()
    OptimizerState(optimizer)
    state = of(model, optimizer)
    names = [(t.key.kind, t.key.fqn) for t in state.tensors]
    assert {("param", "embed.weight"), ("buffer", "seen"), ("exp_avg_sq", "norm.bias")} <= set(names)
    assert len(names) == len(set(names)) == 3 + 1 + 3 * 3
    assert state.aliases == {"head.weight": "embed.weight"}
    embed = next(t for t in state.tensors if t.key.fqn == "embed.weight" and t.key.kind == "param")
    assert embed.tensor.data_ptr() == model.embed.weight.data_ptr()
    step = next(t for t in state.tensors if t.key.kind == "step")
    assert step.shape == ()
    assert step.key.dtype == "F32"
    assert state.full_bytes() == sum(t.tensor.numel() * t.tensor.element_size() for t in state.tensors)


def test_the_digest_sees_names_and_shapes_but_not_values_or_versions() -> None:
    model, optimizer = made()
    OptimizerState(optimizer)
    digest = schema_digest(of(model, optimizer))
    train(model, optimizer, 2)
    later = state_of(model, [optimizer], instance="island-0", version=StateVersion(2, 9))
    assert schema_digest(later) == digest
    assert schema_digest(of(model, None)) != digest
    untied = Tied()
    untied.head.weight = nn.Parameter(untied.embed.weight.detach().clone())
    assert schema_digest(of(untied, None)) != schema_digest(of(model, None))


def test_frozen_parameters_have_no_moments() -> None:
    model, optimizer = made()
    model.norm.bias.requires_grad_(False)
    OptimizerState(optimizer)
    kinds = {t.key.kind for t in of(model, optimizer).tensors if t.key.fqn == "norm.bias"}
    assert kinds == {"param"}


def test_foreign_parameters_and_dtypes_are_refused() -> None:
    model, _ = made()
    stranger = torch.optim.AdamW([nn.Parameter(torch.ones(3))], lr=0.1)
    OptimizerState(stranger)
    with pytest.raises(PlanError, match=r"found another, shape \[3\]"):
        of(model, stranger)
    model.register_buffer("wide", torch.zeros(1, dtype=torch.complex128))
    with pytest.raises(PlanError, match=r"found torch\.complex128"):
        of(model, None)


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    model, optimizer = made()
    train(model, optimizer, 3)
    tensors = {t.key: t.tensor.detach().clone() for t in of(model, optimizer).tensors}
    ref = save(tmp_path, tensors, of=attempt(3), aliases={"head.weight": "embed.weight"})
    train(model, optimizer, 2)
    other_model, other_optimizer = made(seed=1)
    other_state = OptimizerState(other_optimizer)
    load(ref, of(other_model, other_optimizer))
    other_state.load({"started": True})
    train(other_model, other_optimizer, 2)
    for name, value in model.state_dict().items():
        assert torch.equal(value, other_model.state_dict()[name]), name
