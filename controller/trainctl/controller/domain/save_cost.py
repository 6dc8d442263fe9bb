"""What checkpoints and snapshots cost training, from what workers report of them and of their steps. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from trainctl.controller.domain.hang import typical_step_s
from trainctl.controller.domain.job_records import TrainProgress

COSTS_KEPT = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveCost:
    """What one checkpoint, or one snapshot, cost.

    Attributes:
        stall_s: training waited for it.
        seconds: from the step boundary at which it was begun until it was complete.
        slowdown_s: the steps beside it took so much longer than those before, its ``stall_s`` left out; None where that
            cannot be told. They may have taken less by chance.
    """

    stall_s: float
    seconds: float
    slowdown_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveTimes:
    """What is told of one that is complete.

    Attributes:
        step: whose state it has.
        lineage: of that.
        stall_s: training waited for it.
        seconds: from the step boundary at which it was begun until it was complete.
    """

    step: int
    lineage: int
    stall_s: float
    seconds: float


def cost_of(times: SaveTimes, progress: TrainProgress) -> SaveCost | None:
    """What it cost, as far as that is known when it is told; None if what is told cannot be."""
    if not all(0.0 <= seconds < math.inf for seconds in (times.stall_s, times.seconds)):
        return None
    return SaveCost(stall_s=times.stall_s, seconds=times.seconds, slowdown_s=_slowdown_s(times, progress))


def with_cost(costs: Sequence[SaveCost], new: SaveCost | None) -> tuple[SaveCost, ...]:
    """The newest ones, with one more if there is one."""
    return (*costs, *([new] if new is not None else ()))[-COSTS_KEPT:]


def _slowdown_s(times: SaveTimes, progress: TrainProgress) -> float | None:
    """Of the steps after its own, as long as it was on its way; all of them have to be known."""
    since = progress.step - times.step
    recent = progress.recent_step_s
    if progress.lineage != times.lineage or progress.missed or not 0 < since < len(recent):
        return None
    usual_s = typical_step_s(recent[:-since])
    if usual_s is None:
        return None
    longer_s, left_s = 0.0, times.seconds
    for step_s in recent[-since:]:
        if left_s <= 0.0:
            break
        longer_s += step_s - usual_s
        left_s -= step_s
    slowdown_s = longer_s - times.stall_s
    return slowdown_s if left_s <= usual_s and math.isfinite(slowdown_s) else None
