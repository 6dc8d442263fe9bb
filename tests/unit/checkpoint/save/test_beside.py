"""What is saved beside the tensors: what comes back, and what is refused before anything is written.

Without it a loader's position could be lost with a restart, or a save fail half way.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from trainctl.checkpoint.layout.key import StateKey, StateVersion
from trainctl.checkpoint.layout.region import Flat
from trainctl.checkpoint.library import Checkpointer, load, load_state, save, save_state
from trainctl.checkpoint.live.state import LocalState, StateTensor
from trainctl.checkpoint.manifest.values import encode_value
from trainctl.core.errors import CheckpointError


def begun() -> tuple[nn.Module, torch.optim.Optimizer, lr_scheduler.LRScheduler]:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    return model, optimizer, lr_scheduler.MultiStepLR(optimizer, [2, 5, 7], 0.5)


def rates(optimizer: torch.optim.Optimizer, scheduler: lr_scheduler.LRScheduler, steps: int) -> list[float]:
    found = []
    for _ in range(steps):
        optimizer.step()
        found.append(float(optimizer.param_groups[0]["lr"]))
        scheduler.step()
    return found


def test_a_scheduler_that_counts_milestones_goes_on(tmp_path: Path) -> None:
    model, optimizer, scheduler = begun()
    rates(optimizer, scheduler, 4)
    state = scheduler.state_dict()
    ref = save(tmp_path, model=model, optimizers=[optimizer], step=4, objects={"scheduler": state})
    expected = rates(optimizer, scheduler, 6)
    model, optimizer, scheduler = begun()
    found = load(tmp_path, model=model, optimizers=[optimizer]).objects["scheduler"]
    assert type(found["milestones"]) is Counter
    assert found == state
    scheduler.load_state_dict(found)
    assert rates(optimizer, scheduler, 6) == expected
    assert len(set(expected)) == 3, "two milestones lie behind the checkpoint"
    assert json.loads((Path(ref.uri) / "manifest.json").read_bytes())["tcf"] == 2, "older readers refuse it"


def test_what_older_readers_understand_they_may_read(tmp_path: Path) -> None:
    ref = save(tmp_path, model=nn.Linear(1, 1), step=1, objects={"epoch": 3, "betas": (0.5, 2**60)})
    assert json.loads((Path(ref.uri) / "manifest.json").read_bytes())["tcf"] == 1


def cyclic() -> dict[str, Any]:
    inner: dict[str, Any] = {"seen": []}
    inner["seen"].append(inner)
    return {"sampler": inner}


REFUSED: list[tuple[dict[str, Any], list[str]]] = [
    (
        {"objects": {"a": {"b": [0, torch.zeros(1)]}, "c": {1: {2}}}, "artifacts": {"notes.txt": "text", "../x": b""}},
        [
            "objects.a.b[1]: expected None, bool, int, float, str, list, tuple or dict, found Tensor",
            "objects.c[1]: expected None, bool, int, float, str, list, tuple or dict, found set",
            "artifacts['notes.txt']: expected bytes, found str",
            "expected a relative path as the name of an artifact, found '../x'",
        ],
    ),
    ({"objects": cyclic()}, ["objects.sampler.seen[0]: expected values that come to an end, found the dict"]),
    ({"objects": {"text": "\ud800"}}, ["objects.text: expected a text, found one that is no Unicode"]),
    ({"objects": [1]}, ["objects: expected a dict by name, found list"]),
]


@pytest.mark.parametrize(("given", "words"), REFUSED)
def test_all_that_cannot_be_stored_is_named_and_nothing_is_written(
    tmp_path: Path, given: dict[str, Any], words: list[str]
) -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(CheckpointError) as at_once:
        save(tmp_path / "c", model=model, step=1, **given)
    with Checkpointer(tmp_path / "c") as checkpointer, pytest.raises(CheckpointError) as beside:
        checkpointer.async_save(model=model, step=1, **given)
    for caught in (at_once, beside):
        assert [word for word in words if word not in str(caught.value)] == []
        assert caught.value.hint
    assert not list(tmp_path.glob("c/*"))


def state_of(values: torch.Tensor, **beside: Any) -> LocalState:
    key = StateKey("w", "param", "F32", "island-0", StateVersion(0, 0))
    return LocalState((StateTensor(key, (len(values),), Flat(0, len(values)), values),), **beside)


def test_objects_of_a_state_that_is_cut_in_another_way_are_those_of_the_call(tmp_path: Path) -> None:
    values, seen = torch.ones(3), {"seen": [1]}
    with pytest.raises(CheckpointError, match=r"objects\.odd: .*found object"):
        save_state(tmp_path, state_of(values, objects={"odd": object()}), step=1)
    with Checkpointer(tmp_path) as checkpointer:
        with pytest.raises(CheckpointError, match=r"objects\.odd: .*found object"):
            checkpointer.async_save_state(state_of(values, objects={"odd": object()}), step=1)
        pending = checkpointer.async_save_state(state_of(values, objects=seen), step=1)
        seen["seen"].append(2)
        pending.result()
    assert load_state(tmp_path, state_of(torch.zeros(3))).objects == {"seen": [1]}


def test_many_problems_are_not_all_shown() -> None:
    with pytest.raises(CheckpointError) as caught:
        encode_value([object()] * 1000)
    lines = str(caught.value).splitlines()
    assert (len(lines), lines[-1]) == (51, "and 950 more")


def test_values_inside_each_other_have_an_end() -> None:
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(CheckpointError, match="at most 100 deep"):
        encode_value(deep)


def test_between_workers_only_keys_are_marked() -> None:
    """Workers of older versions take numbers as they are."""
    assert encode_value({"a": 0.5, "b": 2**60, "c": (1,)}, keys_only=True) == {"a": 0.5, "b": 2**60, "c": [1]}
    assert encode_value({"m": Counter([3])}, keys_only=True) == {"m": {"$counter": [[3, 1]]}}
