"""The figures of a committed step."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from trainctl.core.records.step import Outcome, StepAction, StepFigures


@dataclass(slots=True)
class StepClock:
    """Seconds of the parts of a step; every rank keeps one, since any of them may have to report."""

    committed_s: float = field(default_factory=time.monotonic)
    reduce_s: float = 0.0
    vote_s: float = 0.0

    def restart(self) -> None:
        """The time of the next step counts from now."""
        self.committed_s = time.monotonic()

    def commit(self, outcome: Outcome, generation: int) -> StepFigures:
        """The step was applied now."""
        now_s = time.monotonic()
        step_s, self.committed_s = now_s - self.committed_s, now_s
        return StepFigures(
            step=outcome.step,
            generation=generation,
            lineage=outcome.lineage,
            loss=outcome.loss_sum / max(outcome.tokens, 1),
            learning_rate=outcome.learning_rate,
            gradient_norm=outcome.gradient_norm,
            tokens=outcome.tokens,
            cursor=outcome.cursor,
            sample_digest=outcome.sample_digest,
            step_s=step_s,
            vote_s=self.vote_s,
            reduce_s=self.reduce_s,
            wall_s=time.time(),
            skipped=outcome.action is StepAction.SKIP,
        )
