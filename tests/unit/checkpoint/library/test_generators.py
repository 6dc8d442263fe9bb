"""Random generators go on from a checkpoint as if nothing had happened.

Without it dropout would differ after a restart, and no run could be repeated.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from trainctl.checkpoint.library import generator_states, load, restore_generators, save
from trainctl.core.errors import CheckpointError


@pytest.fixture(autouse=True)
def _put_back() -> Iterator[None]:
    kept = random.getstate(), np.random.get_state(), torch.get_rng_state()
    yield
    random.setstate(kept[0])
    np.random.set_state(kept[1])
    torch.set_rng_state(kept[2])


def drawn() -> list[float]:
    """Of every generator, an odd number of normal ones: each keeps the second of a pair for the next call."""
    python = [random.random(), random.gauss(0, 1)]
    numpy = [float(np.random.rand()), float(np.random.randn())]
    return [*python, *numpy, *torch.rand(3).tolist(), *torch.randn(3).tolist(), torch.randperm(50)[0].item()]


def test_what_is_drawn_after_a_load_is_what_would_have_been_drawn(tmp_path: Path) -> None:
    for seed in range(3):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        drawn()
        model = nn.Linear(2, 2)
        save(str(tmp_path), model=model, step=seed, objects={"generators": generator_states()})
        expected = [drawn() for _ in range(3)]
        random.seed(99)
        np.random.seed(99)
        torch.manual_seed(99)
        assert drawn() not in expected
        found = load(str(tmp_path), model=nn.Linear(2, 2))
        assert restore_generators(found.objects["generators"])
        assert [drawn() for _ in range(3)] == expected


def test_on_another_number_of_ranks_nothing_is_changed() -> None:
    two = {"ranks": generator_states()["ranks"] * 2}
    drawn()
    before = random.getstate(), torch.get_rng_state()
    assert not restore_generators(two)
    assert not restore_generators({"ranks": [{**two["ranks"][0], "cuda": ["AAAA"] * 99}]})
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])


@pytest.mark.parametrize(
    "change",
    [
        {"torch": "AAAA"},
        {"torch": "not base64"},
        {"python": [3, "AAAA", None]},
        {"python": [2, 0]},
        {"numpy": ["AAAA", 1, 0, "0x0p+0"]},
    ],
)
def test_what_is_no_state_is_refused_and_nothing_is_changed(change: Mapping[str, Any]) -> None:
    (own,) = generator_states()["ranks"]
    drawn()
    before = random.getstate(), torch.get_rng_state(), np.random.get_state()[1].tobytes()  # type: ignore[index]
    with pytest.raises(CheckpointError, match="expected states of python, numpy, torch, cuda as") as caught:
        restore_generators({"ranks": [{**own, **change}]})
    assert caught.value.hint
    for wrong in ({}, {"ranks": 3}, {"ranks": ["x"]}, {"ranks": [{**own, "cuda": 5}]}):
        with pytest.raises(CheckpointError, match="expected the states of generators"):
            restore_generators(wrong)
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    assert np.random.get_state()[1].tobytes() == before[2]  # type: ignore[index]
