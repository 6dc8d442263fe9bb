"""Worlds of processes that train the sharded toy, and the figures that they come to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from multiproc.sharded_toy import train
from multiproc.world import ProcessWorld
from trainctl.core.records.spec import CheckpointSpec, JobSpec, RecoverySpec
from trainctl.core.records.step import StepFigures

STEPS = 12


def make(
    folder: Path, size: int, *, save_every: int = 4, background: bool = False, layout: str = "chunked", **options: Any
) -> ProcessWorld:
    folder.mkdir(exist_ok=True)
    spec = JobSpec(
        checkpoint=CheckpointSpec(
            uri=str(folder / "saved"), interval_steps=save_every, background=background, layout=layout
        ),
        recovery=RecoverySpec(profile="fast"),
    )
    return ProcessWorld(folder, size, train, options={"steps": STEPS, "hidden": 37, **options}, spec=spec)


def surviving(w: ProcessWorld) -> dict[int, StepFigures]:
    """Figures of the newest lineage that reached a step."""
    return {f.step: f for f in sorted(w.figure_log, key=lambda f: f.lineage)}


def run(folder: Path, size: int, **options: Any) -> dict[int, StepFigures]:
    with make(folder, size, **options) as w:
        w.run()
        return surviving(w)


def check(found: dict[int, StepFigures], undisturbed: dict[int, StepFigures]) -> None:
    """The same work and, within reassociation, the same numbers."""
    assert sorted(found) == sorted(undisturbed)
    for step, figure in undisturbed.items():
        assert found[step].sample_digest == figure.sample_digest
        assert found[step].loss == pytest.approx(figure.loss, rel=1e-5)
        assert found[step].learning_rate == figure.learning_rate
