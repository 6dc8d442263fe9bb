"""Runs of tasks through the real worker, and what they leave: for tests that compare runs."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from multiproc.armed_faults import Fault, fault
from multiproc.builtin import run_worker
from multiproc.world import ProcessWorld
from trainctl.checkpoint.export import export_checkpoint
from trainctl.core.records.generation import CheckpointRef
from trainctl.core.records.spec import CheckpointSpec, JobSpec
from trainctl.core.records.train_spec import TrainSpec

OWN = "multiproc.own_code"
STEPS = 6
KILL = fault("vote.after", slot=1, step=3)


def run(folder: Path, train: TrainSpec, *faults: Fault, size: int = 2) -> tuple[list[float], CheckpointRef]:
    """Losses by step and the last checkpoint."""
    folder.mkdir()
    spec = JobSpec(train=train, checkpoint=CheckpointSpec(interval_steps=0))
    with ProcessWorld(folder, size, run_worker, spec=spec, faults=faults, deadline_s=240) as w:
        w.run()
        assert len(w.past) == len(faults)
        losses = {figure.step: figure.loss for figure in w.figure_log}
        ref = w.saved()
    assert sorted(losses) == list(range(1, train.steps + 1))
    assert ref is not None
    return [losses[step] for step in sorted(losses)], ref


def tensors(ref: CheckpointRef, folder: Path) -> dict[str, torch.Tensor]:
    """The weights of a checkpoint, exported to ``folder``."""
    export_checkpoint(ref.uri, str(folder))
    return load_file(folder / "model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Whether both have the same names and bits."""
    return a.keys() == b.keys() and all(torch.equal(value, b[name]) for name, value in a.items())
