"""The learning rate as a function of the step."""

from __future__ import annotations

import math
from collections.abc import Callable

from trainctl.core.errors import PlanError
from trainctl.core.records.train_spec import ScheduleSpec


def learning_rate_schedule(schedule: ScheduleSpec, *, peak: float, steps: int) -> Callable[[int], float]:
    """Linear warm-up to ``peak`` at step ``warmup_steps``, then ``cosine`` or ``constant``.

    Cosine reaches ``min_lr_ratio * peak`` at step ``steps``. Steps count from 1, so the first update already moves.

    Raises:
        PlanError: an unknown kind of schedule.
    """
    if schedule.kind not in ("cosine", "constant"):
        raise PlanError(f"schedule.kind: expected cosine or constant, found {schedule.kind!r}")
    floor = schedule.min_lr_ratio if schedule.kind == "cosine" else 1.0

    def learning_rate(step: int) -> float:
        if step <= schedule.warmup_steps:
            return peak * step / schedule.warmup_steps
        progress = min((step - schedule.warmup_steps) / max(steps - schedule.warmup_steps, 1), 1.0)
        return peak * (floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * progress)))

    return learning_rate
