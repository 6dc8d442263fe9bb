"""Checkpoints of models on meshes of two dims, by several processes: HSDP, and FSDP2 over tensor parallelism.

Without it weights of a sharded model could come back in wrong places.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from multiproc.library_runs import run
from multiproc.mesh_ranks import CASES, built, loads_into_meshes, saves_from_meshes, step, whole
from trainctl.checkpoint.library import load

pytestmark = pytest.mark.multiproc


def columns_saved(folder: Path) -> list[str]:
    """What each rank wrote of the weight that is cut by columns."""
    entries = []
    for path in sorted(folder.rglob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            entries += [name for name in file.keys() if name.startswith("2.weight")]  # noqa: SIM118  (no dict)
    return sorted(name.removeprefix("2.weight") for name in entries)


def test_four_ranks_on_a_mesh_to_two_and_to_one(tmp_path: Path) -> None:
    run(saves_from_meshes, tmp_path, 4)
    assert columns_saved(tmp_path / "columns") == ["@@box:0:3,0:5", "@@box:0:3,5:10"]
    run(loads_into_meshes, tmp_path, 2, 1)
    for name in CASES:
        model, optimizer = built(seed=5)
        step(model, optimizer)
        load(str(tmp_path / name), model=model, optimizers=[optimizer])
        found, expected = whole(model, optimizer), load_file(tmp_path / f"{name}.safetensors")
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], value) for key, value in expected.items())
