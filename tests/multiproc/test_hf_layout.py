"""Checkpoints in layout ``hf`` of ranks that train, and folders of torch DCP that ranks wrote.

Without it checkpoints in that layout could be readable by nobody once several ranks write them.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from multiproc.library_ranks import saves_dcp, saves_in_place, single
from multiproc.library_runs import run
from multiproc.toy import build, final_states, train
from multiproc.world import ProcessWorld
from trainctl.checkpoint.importing import import_checkpoint
from trainctl.checkpoint.kept.catalog import newest, resolve
from trainctl.checkpoint.kept.verification import verify
from trainctl.checkpoint.library import load
from trainctl.core.records.spec import CheckpointKeepSpec, CheckpointSpec, JobSpec

pytestmark = pytest.mark.multiproc
STEPS = 8


def stock(folder: Path) -> dict[str, torch.Tensor]:
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no dict)


def test_what_is_saved_beside_the_training_is_read_with_stock_tools(tmp_path: Path) -> None:
    checkpoint = CheckpointSpec(interval_steps=2, keep=CheckpointKeepSpec(last=99), layout="hf")
    options = {"steps": STEPS, "hidden": 150}
    with ProcessWorld(tmp_path, 2, train, options=options, spec=JobSpec(checkpoint=checkpoint)) as w:
        w.propose(range(2))
        w.until(lambda: w.saved() is not None)
        first = w.saved()
        assert first is not None
        early = stock(Path(first.uri))  # while the ranks go on
        w.until(lambda: all(life.finished for life in w.members()))
        w.stop()
        refs = [report.ref for report in w.checkpoints if report.ref is not None]
    assert [ref.step for ref in refs] == [2, 4, 6, 8]
    assert not any(verify(ref).damage for ref in refs)
    model, _ = build(1, 150, torch.float32)
    names = {*model.state_dict(), *(f"average.{name}" for name in model.state_dict())}
    assert early.keys() == names
    last = stock(Path(refs[-1].uri))
    (final,) = final_states(tmp_path, 2)
    weights = b"".join(bytes(last[name].reshape(-1).view(torch.uint8).numpy()) for name, _ in model.named_parameters())
    assert final.startswith(weights)
    assert not torch.equal(early["0.weight"], last["0.weight"])


def test_sharded_ranks_write_into_the_same_files(tmp_path: Path) -> None:
    run(saves_in_place, tmp_path, 2)
    ref = resolve(str(tmp_path / "c"))
    assert not verify(ref).damage
    model, _ = single()
    load(ref.uri, model=model)
    found = stock(Path(ref.uri))
    assert found.keys() == model.state_dict().keys()
    assert all(torch.equal(found[name], value) for name, value in model.state_dict().items())


def test_what_ranks_saved_with_dcp_is_imported(tmp_path: Path) -> None:
    run(saves_dcp, tmp_path, 3)
    report = import_checkpoint(str(tmp_path / "dcp"), str(tmp_path / "own"), step=3)
    assert report.optimizer
    model, optimizer = single()
    load(str(tmp_path / "own"), model=model, optimizers=[optimizer])
    other, moments = single()
    load(str(tmp_path / "c"), model=other, optimizers=[moments])
    assert newest(str(tmp_path / "own")) == report.ref
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    for one, two in zip(optimizer.state.values(), moments.state.values(), strict=True):
        assert one.keys() == two.keys()
        assert all(torch.equal(one[kind], two[kind]) for kind in one)
