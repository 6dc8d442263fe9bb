"""Without it every rank of a large job could run out of memory with the layouts of all others."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from trainctl.checkpoint.layout.key import StateKey, StateVersion
from trainctl.checkpoint.layout.region import Box, Flat, Region
from trainctl.checkpoint.live.state import LocalState, StateTensor
from trainctl.core.errors import PlanError
from trainctl.parallel.collectives.solo import SoloGroup
from trainctl.parallel.collectives.wait import Waiter
from trainctl.parallel.replica import gathered_layout

PARTS: list[dict[str, Region]] = [
    {"a": Box((0, 0), (2, 3)), "b": Box((0, 0), (2, 3)), "c": Flat(0, 12)},
    {"a": Box((2, 0), (2, 3)), "b": Box((2, 0), (2, 3)), "c": Flat(5, 12)},
]


def state(rank: int) -> LocalState:
    tensors = []
    for name, region in PARTS[rank].items():
        key = StateKey(name, "param", "F32", "island-0", StateVersion(1, 4))
        tensors.append(StateTensor(key, (4, 3), region, torch.zeros(1)))
    return LocalState(tuple(tensors))


def test_what_all_ranks_hold_is_one_layout_that_shares_what_lies_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[Any] = []

    def gather_json(group: object, value: Any, **_: object) -> list[Any]:
        said.append(json.loads(json.dumps(value)))
        return said

    monkeypatch.setattr(gathered_layout, "gather_json", gather_json)
    waiter = Waiter(aborted=lambda: False, touch=lambda: None, where=lambda: "a test", timeout_s=10.0)
    for rank in range(2):
        layout = gathered_layout.gathered_layout(SoloGroup(torch.device("cpu")), state(rank), waiter=waiter)
    assert {holder: {key.fqn: held for key, held in keys.items()} for holder, keys in layout.holders.items()} == {
        f"rank:{rank}": {name: (region,) for name, region in part.items()} for rank, part in enumerate(PARTS)
    }
    assert set(layout.only(["rank:1"]).holders) == {"rank:1"}
    a, b, c = layout.placements.values()
    assert a is b
    assert a is not c


def test_ranks_with_parts_of_other_tensors_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    own = state(0)
    other = LocalState(tuple(replace(t, key=t.key._replace(fqn=f"{t.key.fqn}.stage")) for t in own.tensors))
    said: list[Any] = []

    def gather_json(group: object, value: Any, **_: object) -> list[Any]:
        said.append(value)
        return said

    monkeypatch.setattr(gathered_layout, "gather_json", gather_json)
    waiter = Waiter(aborted=lambda: False, touch=lambda: None, where=lambda: "a test", timeout_s=10.0)
    gathered_layout.gathered_layout(SoloGroup(torch.device("cpu")), own, waiter=waiter)
    with pytest.raises(PlanError, match="rank 0 built a model or optimizer of other names"):
        gathered_layout.gathered_layout(SoloGroup(torch.device("cpu")), other, waiter=waiter)
