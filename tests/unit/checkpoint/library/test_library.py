"""Checkpoints without a controller, in one process.

Without it a script could go on from other state than it saved.
"""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from trainctl.checkpoint.kept.catalog import survey
from trainctl.checkpoint.layout.key import StateKey, StateVersion
from trainctl.checkpoint.layout.region import Box, Flat
from trainctl.checkpoint.library import load, load_state, save, save_state
from trainctl.checkpoint.library.holdings import Holdings, told
from trainctl.checkpoint.live.state import LocalState, StateTensor
from trainctl.core.errors import CheckpointError, PlanError
from unit.checkpoint.library_training import built, same, train


@pytest.mark.parametrize("before", [0, 3])
def test_training_goes_on_as_if_nothing_had_happened(tmp_path: Path, before: int) -> None:
    model, optimizer = built()
    train(model, optimizer, before)
    ref = save(str(tmp_path), model=model, optimizers=[optimizer], step=before, objects={"epoch": 2})
    assert (len(optimizer.state) > 0) == (before > 0), "an optimizer that has not stepped is left alone"
    other, its_optimizer = built(seed=1)
    found = load(str(tmp_path), model=other, optimizers=[its_optimizer])
    assert (found.uri, found.step, found.objects) == (ref.uri, before, {"epoch": 2})
    train(model, optimizer, 4)
    train(other, its_optimizer, 4)
    assert same(model, other)


class Island:
    """Inner steps, and after some of them an outer one, by Nesterov's momentum, on what all islands agreed on last."""

    def __init__(self, seed: int) -> None:
        model, self.inner = built(seed)
        agreed = copy.deepcopy(model)
        self.outer = torch.optim.SGD(agreed.parameters(), lr=0.7, momentum=0.9, nesterov=True)
        self.modules = nn.ModuleDict({"model": model, "agreed": agreed})

    @property
    def optimizers(self) -> list[torch.optim.Optimizer]:
        return [self.inner, self.outer]

    def rounds(self, count: int) -> None:
        model, agreed = self.modules["model"], self.modules["agreed"]
        for _ in range(count):
            train(model, self.inner, 3)
            for ours, mean in zip(model.parameters(), agreed.parameters(), strict=True):
                mean.grad = mean.detach() - ours.detach()
            self.outer.step()
            with torch.no_grad():
                for ours, mean in zip(model.parameters(), agreed.parameters(), strict=True):
                    ours.copy_(mean)


def test_an_outer_optimizer_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    one, other = Island(0), Island(1)
    one.rounds(2)
    save(str(tmp_path), model=one.modules, optimizers=one.optimizers, step=6)
    load(str(tmp_path), model=other.modules, optimizers=other.optimizers)
    one.rounds(3)
    other.rounds(3)
    assert same(one.modules, other.modules)


def test_parameters_alone(tmp_path: Path) -> None:
    model, optimizer = built()
    train(model, optimizer, 2)
    ref = save(str(tmp_path), model=model, optimizers=[optimizer], step=2)
    other, its_optimizer = built(seed=1)
    load(ref.uri, model=other)
    assert same(model, other)
    with pytest.raises(
        CheckpointError,
        match=r"exp_avg, exp_avg_sq and step of \{0-1,3\}.bias \(3 tensors\): in the checkpoint, but not wanted",
    ):
        load(ref.uri, model=other, optimizers=[])
    load(ref.uri, model=other, optimizers=[its_optimizer])


def test_the_newest_is_taken_and_older_ones_go(tmp_path: Path) -> None:
    model, _ = built()
    for step in (1, 2, 3, 4):
        save(str(tmp_path), model=model, step=step, keep=2)
    assert [info.ref.step for info in survey(str(tmp_path)).checkpoints] == [4, 3]
    assert load(str(tmp_path), model=model).step == 4
    assert load(f"{tmp_path}/step-000000000003", model=model).step == 3


def test_what_does_not_fit_is_said_all_at_once_with_the_nearest_name(tmp_path: Path) -> None:
    model, _ = built()
    save(str(tmp_path), model=model, step=1)
    wider, _ = built(width=6)
    before = {name: value.clone() for name, value in wider.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load(str(tmp_path), model=wider)
    assert "param of 0.weight: expected shape [6, 3], found [5, 3]" in str(caught.value)
    assert re.search(r"\(\d+ differences\)", str(caught.value))
    assert all(torch.equal(value, before[name]) for name, value in wider.state_dict().items())
    renamed = nn.ModuleDict({"body": nn.Linear(3, 5)})
    save(str(tmp_path / "named"), model=renamed, step=1)
    with pytest.raises(CheckpointError, match=r"bodi.weight.*; the nearest name there is body.weight"):
        load(str(tmp_path / "named"), model=nn.ModuleDict({"bodi": nn.Linear(3, 5)}))


def test_a_folder_without_checkpoints_is_said(tmp_path: Path) -> None:
    model, _ = built()
    with pytest.raises(CheckpointError, match="holds no complete checkpoint"):
        load(str(tmp_path / "nothing"), model=model)


def part(region: Any, values: torch.Tensor, shape: tuple[int, ...] = (4, 3)) -> LocalState:
    key = StateKey("w", "param", "F32", "island-0", StateVersion(0, 0))
    return LocalState((StateTensor(key, shape, region, values),))


def test_flat_ranges_go_into_boxes(tmp_path: Path) -> None:
    values = torch.arange(12.0)
    save_state(str(tmp_path), part(Flat(0, 12), values), step=1)
    rows = torch.zeros(2, 3)
    load_state(str(tmp_path), part(Box((1, 0), (2, 3)), rows))
    assert torch.equal(rows, values.reshape(4, 3)[1:3])


def test_parts_that_nobody_holds_are_named(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"(?s)expected every part.*w"):
        save_state(str(tmp_path), part(Flat(0, 7), torch.zeros(7)), step=1)
    assert not survey(str(tmp_path)).checkpoints


def test_ranks_that_mean_different_tensors_are_named() -> None:
    said = [told(part(Flat(0, 6), torch.zeros(6))), told(part(Flat(6, 15), torch.zeros(9), (5, 3)))]
    with pytest.raises(PlanError, match=r"param of w: rank 0 has F32 \[4, 3\], rank 1 F32 \[5, 3\]"):
        Holdings.of(said, StateVersion(1, 1))
