"""How long a job trains between two checkpoints, or two snapshots (``interval`` in ``spec.checkpoint``). Pure.

After Young and Daly: a checkpoint that costs training ``C`` seconds, every ``t`` seconds, against failures that are
``M`` seconds apart and undo half an interval, loses the share ``C/t + t/2M`` of time: least for ``t = sqrt(2 C M)``.
So does a snapshot in the memory of the nodes, for failures that go back to one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from trainctl.controller.domain.failure_rate import FailureRate
from trainctl.controller.domain.save_cost import SaveCost
from trainctl.core.units import format_duration

MIN_S, MAX_S = 10.0, 3600.0
"""No checkpoint is worth being made more often, and nobody wants to lose more, whatever has the least cost."""
FIRST_S = 60.0
"""Before the first checkpoint: what one costs is not known until one was made."""
SNAPSHOT_MIN_S, SNAPSHOT_FIRST_S = 1.0, 10.0
"""The same of snapshots, which are nearer."""
CHANGE = 1.2
"""What differs by no more than this factor is not worth an event: 20 % beside the optimum lose 2 % more than needed."""
_ENOUGH = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What is made at an interval.

    Attributes:
        noun: what one is called.
        field: of the job file.
        min_s: no less, whatever loses least.
        first_s: before the first one.
    """

    noun: str
    field: str
    min_s: float
    first_s: float


CHECKPOINTS = Kind(noun="checkpoint", field="spec.checkpoint.interval", min_s=MIN_S, first_s=FIRST_S)
SNAPSHOTS = Kind(
    noun="snapshot", field="spec.checkpoint.snapshots.interval", min_s=SNAPSHOT_MIN_S, first_s=SNAPSHOT_FIRST_S
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointInterval:
    """A choice (message ``CheckpointInterval``), of checkpoints or of snapshots.

    Attributes:
        interval_s: from the beginning of one to that of the next.
        reason: one sentence with numbers.
        since_s: when it was chosen, Unix seconds.
        waste: share of the time that goes into them, into what failures undo and into recoveries, if each failure goes
            back to one; None where it is not known.
        cost_s: seconds of training that one costs; None before the first.
        failures_apart_s: mean time between failures; None where it does not matter.
    """

    interval_s: float
    reason: str
    since_s: float
    waste: float | None = None
    cost_s: float | None = None
    failures_apart_s: float | None = None


def fixed_interval(interval_s: float, now_s: float, kind: Kind = CHECKPOINTS) -> CheckpointInterval:
    """What the job file says."""
    return CheckpointInterval(interval_s=interval_s, reason=f"{kind.field} says so", since_s=now_s)


def choose_interval(
    *,
    costs: Sequence[SaveCost],
    failures: FailureRate,
    restore_s: float | None,
    before: CheckpointInterval | None,
    now_s: float,
    kind: Kind = CHECKPOINTS,
) -> CheckpointInterval:
    """The interval that loses least, within limits; ``before`` itself where a change is not worth it.

    Args:
        costs: of the newest ones.
        failures: how often the job fails.
        restore_s: how long a recovery takes; it says how much is lost, and changes no choice. None: not known.
        before: the choice that holds now, if there is one.
        now_s: Unix seconds.
        kind: what is made.
    """
    if not costs:
        reason = f"no {kind.noun} was made yet: the first one shows what one costs"
        return before or CheckpointInterval(interval_s=kind.first_s, reason=reason, since_s=now_s)
    cost_s, cost = _cost(costs)
    best_s = math.sqrt(2.0 * cost_s * failures.apart_s)
    usual_s = _usual_s(costs)
    interval_s, limit = _limited(best_s, usual_s, kind.min_s)
    if before is not None and _near(before, interval_s, usual_s):
        return before
    waste = _waste(interval_s, cost_s, failures, costs, restore_s)
    recovery = f" and {format_duration(restore_s)} for each recovery" if restore_s is not None else ""
    reason = (
        f"a {kind.noun} costs {format_duration(cost_s)} of training ({cost}), failures are "
        f"{format_duration(failures.apart_s)} apart ({failures.because}): {format_duration(best_s)} between "
        f"{kind.noun}s lose least{limit}; {100 * waste:.2f} % of the time is lost, with what failures undo{recovery}"
    )
    return CheckpointInterval(
        interval_s=interval_s,
        reason=reason,
        since_s=now_s,
        waste=waste,
        cost_s=cost_s,
        failures_apart_s=failures.apart_s,
    )


def _cost(costs: Sequence[SaveCost]) -> tuple[float, str]:
    """What one costs training, and in words: medians, since the first one, and one at a pause, cost more."""
    stall_s = median(cost.stall_s for cost in costs)
    known = [cost.slowdown_s for cost in costs if cost.slowdown_s is not None]
    of = f"median of {len(costs)}" if len(costs) > 1 else "of one"
    if not known:
        return stall_s, f"waiting for it, {of}"
    slowdown_s = max(0.0, median(known))
    parts = f"{format_duration(stall_s)} waiting for it, {format_duration(slowdown_s)} of slower steps beside it, {of}"
    return stall_s + slowdown_s, parts


def _usual_s(costs: Sequence[SaveCost]) -> float:
    """How long it takes until one is complete; a few are not believed that something else lasted for hours."""
    usual_s = median(cost.seconds for cost in costs)
    return usual_s if len(costs) >= _ENOUGH else min(usual_s, MAX_S / CHANGE)


def _limited(best_s: float, usual_s: float, min_s: float) -> tuple[float, str]:
    """Within limits, and why it is another; one is complete before the next is begun, with a little room."""
    least_s = CHANGE * usual_s
    if least_s > max(best_s, min_s):
        return least_s, f", but it takes {format_duration(usual_s)} until one is complete"
    if best_s < min_s:
        return min_s, f", but it is at least {format_duration(min_s)}"
    if best_s > MAX_S:
        return max(MAX_S, least_s), f", but it is at most {format_duration(MAX_S)}"
    return best_s, ""


def _near(before: CheckpointInterval, interval_s: float, usual_s: float) -> bool:
    """Whether ``before`` may stay: it was chosen from measured costs, it is as good, and saves still fit into it."""
    near = interval_s / CHANGE <= before.interval_s <= interval_s * CHANGE
    return near and before.cost_s is not None and usual_s <= before.interval_s


def _waste(
    interval_s: float, cost_s: float, failures: FailureRate, costs: Sequence[SaveCost], restore_s: float | None
) -> float:
    """A failure undoes half an interval, and what was trained while the newest checkpoint was not complete yet."""
    lag_s = median(cost.seconds for cost in costs)
    per_failure_s = interval_s / 2.0 + lag_s + (restore_s or 0.0)
    return min(1.0, cost_s / interval_s + per_failure_s / failures.apart_s)
