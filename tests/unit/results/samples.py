from __future__ import annotations

from trainctl.core.records.step import StepFigures


def figures(step: int, lineage: int = 1, *, loss: float = 2.0, eval_loss: float | None = None) -> StepFigures:
    return StepFigures(
        step=step, generation=lineage, lineage=lineage, loss=loss, learning_rate=0.1, gradient_norm=1.5, tokens=100,
        cursor=8 * step, sample_digest=step, step_s=0.1, vote_s=0.01, reduce_s=0.02, wall_s=1e9 + step,
        eval_loss=eval_loss,
    )  # fmt: skip
