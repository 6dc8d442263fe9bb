"""Worlds of processes that train the toy of ``toy.py``, and how far they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from multiproc.toy import train
from multiproc.world import ProcessWorld
from trainctl.core.records.spec import CheckpointSpec, JobSpec

SIZE, STEPS = 3, 12
OPTIONS = {"steps": STEPS, "hidden": 150}
NO_CHECKPOINTS = JobSpec(checkpoint=CheckpointSpec(interval_steps=0))


def make(
    folder: Path, *faults: dict[str, Any], size: int = SIZE, spec: JobSpec = NO_CHECKPOINTS, **options: Any
) -> ProcessWorld:
    folder.mkdir(exist_ok=True)
    return ProcessWorld(folder, size, train, options={**OPTIONS, **options}, spec=spec, faults=faults)


def reached(w: ProcessWorld, step: int) -> bool:
    return any(f.step >= step for f in w.figure_log)
