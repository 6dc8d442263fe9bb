"""Figures of a step."""

from __future__ import annotations

from trainctl.controller.domain.job_state import JobState
from trainctl.core.records.step import StepFigures


def figure(state: JobState, step: int, *, tokens: int) -> StepFigures:
    record = state.sole_island.record
    assert record is not None
    return StepFigures(
        step=step, generation=record.generation, lineage=record.lineage, loss=1.0, learning_rate=0.1, gradient_norm=1.0,
        tokens=tokens, cursor=8 * step, sample_digest=step, step_s=0.1, vote_s=0.01, reduce_s=0.01, wall_s=0.0,
    )  # fmt: skip
