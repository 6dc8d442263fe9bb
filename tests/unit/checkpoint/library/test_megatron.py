"""Megatron's way of cutting a model, saved by one grid of ranks and loaded by others, and by a plain module.

Without it models cut like Megatron's could come back with mixed heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import nn

from trainctl.checkpoint.engine import CheckpointWriter, assign, load
from trainctl.checkpoint.layout.key import StateVersion
from trainctl.checkpoint.layout.layout import rank_holder
from trainctl.checkpoint.layout.region import Box, Flat, flat_in_box
from trainctl.checkpoint.library import load as load_module
from trainctl.checkpoint.library.holdings import Holdings, told
from trainctl.checkpoint.manifest.reading import read_root
from trainctl.checkpoint.save.saving import live_data
from trainctl.checkpoint.storage.opening import open_storage
from trainctl.core.errors import PlanError
from trainctl.core.records.generation import CheckpointRef
from trainctl.core.system.faults import FaultPlan
from unit.checkpoint.megatron import EMBED, HEAD, PADDING, SHAPES, WIDTH, WORDS, Grid, Rank, value
from unit.checkpoint.ranks import attempt

FOUR = [Grid(2, 2, 1), Grid(2, 1, 2), Grid(1, 2, 2), Grid(1, 4, 1), Grid(1, 1, 4), Grid(4, 1, 1), Grid(2, 2, 2)]
TWO_AND_ONE = [Grid(2, 1, 1), Grid(1, 2, 1), Grid(1, 1, 2), Grid(1, 1, 1)]


def ranks(grid: Grid, *, tied: str = EMBED, filled: bool) -> list[Rank]:
    return [Rank(place, tied=tied, filled=filled) for place in grid.places()]


def saved(folder: Path, world: Sequence[Rank]) -> CheckpointRef:
    """As all ranks do together with ``save_state``."""
    everybody = Holdings.of([told(rank.state) for rank in world], StateVersion(1, 1))
    assigned = assign(everybody.layout)
    writer = CheckpointWriter(str(folder), faults=FaultPlan())
    parts = [
        writer.write_part(
            attempt(),
            writer=number,
            data=live_data(everybody.here(rank.state), assigned[rank_holder(number)]),
            shapes=everybody.layout.shapes,
        )
        for number, rank in enumerate(world)
    ]
    return writer.seal(attempt(), state=everybody.described(world[0].state), parts=parts, parent=None)


def loaded(ref: CheckpointRef, world: Sequence[Rank]) -> None:
    """As all ranks do together with ``load_state``; every value is where it belongs, and no padding was touched."""
    everybody = Holdings.of([told(rank.state) for rank in world], StateVersion(1, 1))
    for rank in world:
        rank.state.check()
        load(ref, rank.state, everything=everybody.layout.shapes)
        assert all(torch.equal(t.tensor, rank.expected(t)) for t in rank.tensors)
        assert all((rows == PADDING).all() for rows in rank.padding)
        assert not (rank.moments == PADDING).any()


@pytest.mark.parametrize("before", FOUR, ids=str)
@pytest.mark.parametrize("tied", [EMBED, HEAD])
def test_a_grid_loads_into_smaller_ones(tmp_path: Path, before: Grid, tied: str) -> None:
    ref = saved(tmp_path, ranks(before, tied=tied, filled=True))
    for after in TWO_AND_ONE:
        loaded(ref, ranks(after, tied=tied, filled=False))


def test_two_ranks_load_into_eight(tmp_path: Path) -> None:
    ref = saved(tmp_path, ranks(Grid(2, 1, 1), filled=True))
    loaded(ref, ranks(Grid(2, 2, 2), filled=False))


def test_the_copy_of_the_last_stage_is_saved_once_under_one_name_and_twice_under_two(tmp_path: Path) -> None:
    once = 2 * 4 * sum(torch.Size(shape).numel() for shape in SHAPES.values())
    embedding = 2 * 4 * WORDS * WIDTH
    for tied, size in ((EMBED, once), (HEAD, once + embedding)):
        ref = saved(tmp_path / tied, ranks(Grid(2, 1, 2), tied=tied, filled=True))
        root, _ = read_root(open_storage(ref.uri))
        assert root.data_bytes == size
        assert dict(root.aliases) == ({HEAD: EMBED} if tied == EMBED else {})


@pytest.mark.parametrize("tied", [EMBED, HEAD])
@pytest.mark.parametrize("model_ties", [True, False])
def test_a_plain_module_takes_the_tied_weight_of_the_stages(tmp_path: Path, tied: str, model_ties: bool) -> None:
    """Whichever of both ties it: by one name on both stages, or by two."""
    ref = saved(tmp_path, ranks(Grid(2, 1, 2), tied=tied, filled=True))
    model = nn.Module()
    for fqn, shape in SHAPES.items():
        _put(model, fqn, nn.Parameter(torch.zeros(shape)))
    embedding = model.get_parameter(EMBED)
    _put(model, HEAD, embedding if model_ties else nn.Parameter(torch.zeros_like(embedding)))
    load_module(ref.uri, model=model)
    assert all(torch.equal(model.get_parameter(fqn), value(fqn, "param")) for fqn in SHAPES)
    assert torch.equal(model.get_parameter(HEAD), value(EMBED, "param"))


@pytest.mark.parametrize("tied", [EMBED, HEAD])
def test_stages_take_what_a_plain_module_ties(tmp_path: Path, tied: str) -> None:
    one = ranks(Grid(1, 1, 1), filled=True)
    assert one[0].state.aliases == {HEAD: EMBED}
    loaded(saved(tmp_path, one), ranks(Grid(1, 1, 2), tied=tied, filled=False))


def _put(model: nn.Module, fqn: str, parameter: nn.Parameter) -> None:
    *path, name = fqn.split(".")
    for part in path:
        if part not in dict(model.named_children()):
            model.add_module(part, nn.Module())
        model = model.get_submodule(part)
    model.register_parameter(name, parameter)


def test_a_flat_range_of_a_slice_is_boxes_of_the_tensor() -> None:
    box = Box((1, 2), (3, 2))
    found = flat_in_box(box, Flat(1, 5))
    assert found == (Box((1, 3), (1, 1)), Box((2, 2), (1, 2)), Box((3, 2), (1, 1)))
    whole = torch.arange(20).reshape(4, 5)
    values = torch.cat([whole[o[0] : o[0] + n[0], o[1] : o[1] + n[1]].reshape(-1) for o, n in found])
    assert torch.equal(values, whole[1:4, 2:4].reshape(-1)[1:5])
    with pytest.raises(PlanError, match=r"inside a tensor of shape \[3, 2\]"):
        flat_in_box(box, Flat(1, 7))
