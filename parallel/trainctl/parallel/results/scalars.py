"""The numbers of a step under the names that TensorBoard and Weights & Biases show."""

from __future__ import annotations

from collections.abc import Mapping

from trainctl.core.records.step import StepFigures


def scalars(figures: StepFigures) -> Mapping[str, float]:
    """Name to value; the held-out loss only where there is one."""
    values = {
        "train/loss": figures.loss,
        "train/learning_rate": figures.learning_rate,
        "train/gradient_norm": figures.gradient_norm,
        "train/samples": float(figures.cursor),
        "time/step_s": figures.step_s,
        "time/reduce_s": figures.reduce_s,
        "time/vote_s": figures.vote_s,
    }
    if figures.step_s > 0:
        values["time/tokens_per_s"] = figures.tokens / figures.step_s
    if figures.eval_loss is not None:
        values["eval/loss"] = figures.eval_loss
    return values
