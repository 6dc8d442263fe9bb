"""What modules keep beside parameters and buffers is saved and loaded as torch's own ``state_dict`` would.

Without it models with state of their own could come back without it.
"""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from trainctl.checkpoint.kept.catalog import inspect
from trainctl.checkpoint.layout.key import StateVersion
from trainctl.checkpoint.library import Checkpointer, load, save
from trainctl.checkpoint.live.extra_state import ExtraState
from trainctl.checkpoint.live.state import state_of
from trainctl.core.errors import CheckpointError, PlanError
from trainctl.parallel.replica.replica import Replica
from trainctl.parallel.replica.training_state import TrainingState


class Keeper(nn.Module):
    """Counts, and keeps what it has seen."""

    def __init__(self, extra: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.extra = extra

    def get_extra_state(self) -> Any:
        return self.extra

    def set_extra_state(self, state: Any) -> None:
        self.extra = state


VALUES: list[Any] = [
    {"steps": 7, "scale": 0.1, "name": "e4m3", "seen": [1, None, True]},
    torch.tensor([[0.1, -2.0], [float("inf"), 3.5]]),
    {"amax": [torch.arange(3, dtype=torch.uint8), torch.tensor(2.5, dtype=torch.bfloat16)], "empty": torch.empty(0, 4)},
]


def same(found: Any, expected: Any) -> bool:
    if isinstance(expected, torch.Tensor):
        return found.dtype == expected.dtype and torch.equal(found, expected)
    if isinstance(expected, dict):
        return set(found) == set(expected) and all(same(found[key], expected[key]) for key in expected)
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(same, found, expected))
    return bool(found == expected)


def model_of(*extras: Any) -> nn.Module:
    return nn.Sequential(nn.Linear(2, 2), *map(Keeper, extras))


def extras(model: nn.Module) -> list[Any]:
    return [part.extra for part in model.modules() if isinstance(part, Keeper)]


@pytest.mark.parametrize("evaluates", [False, True])
def test_a_library_checkpoint_brings_it_back(tmp_path: Path, evaluates: bool) -> None:
    model, into = model_of(*VALUES), model_of(None, None, None)
    save(str(tmp_path), model=model, optimizers=[torch.optim.SGD(model.parameters())], step=1, objects={"epoch": 3})
    optimizers = None if evaluates else [torch.optim.SGD(into.parameters())]
    found = load(str(tmp_path), model=into, optimizers=optimizers)
    assert same(extras(into), VALUES)
    assert found.objects == {"epoch": 3}, "what the caller gave"


def test_a_save_beside_training_has_it_as_it_was_then(tmp_path: Path) -> None:
    model, into = model_of({"steps": 1}), model_of(None)
    with Checkpointer(str(tmp_path)) as checkpointer:
        checkpointer.async_save(model=model, step=1)
        next(part for part in model.modules() if isinstance(part, Keeper)).extra["steps"] = 2
    load(str(tmp_path), model=into)
    assert extras(into) == [{"steps": 1}]


def test_its_tensors_are_none_of_the_state_that_is_filled_in_place() -> None:
    state = state_of(model_of(*VALUES), instance="i", version=StateVersion(0, 0))
    assert not any("extra" in tensor.key.fqn for tensor in state.tensors)


def test_a_model_without_any_has_no_such_object(tmp_path: Path) -> None:
    ref = save(str(tmp_path), model=nn.Linear(2, 2), step=1)
    assert inspect(ref.uri).manifest.objects["registered"] == {}


def test_what_was_saved_without_it_leaves_it_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Plain(Keeper):
        get_extra_state = nn.Module.get_extra_state

    save(str(tmp_path), model=Plain(1), step=1)
    into = Keeper(5)
    with caplog.at_level(logging.WARNING):
        load(str(tmp_path), model=into)
    assert into.extra == 5
    assert "get_extra_state" in caplog.text


def test_that_of_other_modules_is_refused(tmp_path: Path) -> None:
    save(str(tmp_path), model=model_of(1), step=1)
    into = nn.Sequential(nn.Linear(2, 2), nn.ParameterDict({"weight": torch.ones(2)}))
    with pytest.raises(PlanError, match="of these modules: none; found it of: 1"):
        load(str(tmp_path), model=into)


def test_what_cannot_be_saved_is_refused_with_its_module(tmp_path: Path) -> None:
    model = model_of(1, {"file": io.BytesIO()})
    with pytest.raises(PlanError, match="extra state of module '2', found BytesIO"):
        save(str(tmp_path), model=model, step=1)
    assert not list(tmp_path.rglob("manifest.json"))
    with pytest.raises(PlanError, match="extra state of module '2', found BytesIO"):
        Replica(TrainingState(model=model, optimizers=[torch.optim.SGD(model.parameters())]), instance="i")


def training(*values: Any, average: Any = 0) -> TrainingState:
    model = model_of(*values)
    return TrainingState(
        model=model, optimizers=[torch.optim.SGD(model.parameters())], modules={"average": Keeper(average)}
    )


def test_another_worker_receives_it_with_the_registered_objects() -> None:
    source, target = (Replica(training(*values), instance="i") for values in (VALUES, [None, None, None]))
    average: Any = source.training.modules["average"]
    average.extra = {"updates": 4}
    assert target.import_objects(source.export_objects()) == 0
    assert same(extras(target.training.model), VALUES)
    received: Any = target.training.modules["average"]
    assert received.extra == {"updates": 4}


def test_a_job_begins_with_what_an_older_version_saved(caplog: pytest.LogCaptureFixture) -> None:
    source, target = Replica(training(1), instance="i"), Replica(training(2), instance="i")
    exported = source.export_objects()
    del exported["registered"]["extra state"]
    with caplog.at_level(logging.WARNING):
        target.import_objects(exported)
    assert extras(target.training.model) == [2]
    assert "was not saved" in caplog.text


def test_the_name_is_taken() -> None:
    state = training(1)
    taken = TrainingState(model=state.model, optimizers=state.optimizers, objects={"extra state": state.extra})
    with pytest.raises(PlanError, match="is taken"):
        Replica(taken, instance="i")
    objects = {"extra state": 1}
    with pytest.raises(CheckpointError, match="is taken"):
        save("/nowhere", model=state.model, step=1, objects=objects)


def test_nothing_is_kept_by_modules_that_keep_nothing() -> None:
    assert not ExtraState({"": nn.Linear(2, 2)})
