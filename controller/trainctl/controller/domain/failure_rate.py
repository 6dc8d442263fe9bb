"""How long a job runs between two failures: what is expected of its nodes, corrected by what happened to it. Pure.

Failures are taken for a Poisson process whose rate has a Gamma prior: so many failures in so much time, to which those
that were seen and the time in which they were seen are added. Two things are not as in the textbook:

- the prior is worth little, ``PRIOR_S`` of running, since what goes wrong is rarely chance: a bad cable comes again at
  once. So the first failure changes the estimate a lot, and a quiet day changes it back;
- what was seen fades, by half every ``HALF_LIFE_S``: a burst is over some day.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from trainctl.core.units import format_count, format_duration

NODE_APART_S = 100 * 86400.0
"""Between two failures of one node, as long as nothing is known of it.

Published: 419 unexpected interruptions in 54 days on 2,048 nodes of 8 GPUs (264 node-days each, Llama 3); one in 7.9 h
on 128 nodes (42 node-days each, Meta 2025).
"""
PRIOR_S = 6 * 3600.0
HALF_LIFE_S = 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureRate:
    """What is known of a job's failures.

    Attributes:
        apart_s: expected time between two of them.
        because: what that was estimated from, for people.
    """

    apart_s: float
    because: str


def failure_rate(*, nodes: int, ran_s: float, ages_s: Sequence[float]) -> FailureRate:
    """The estimate for a job.

    Args:
        nodes: that it runs on, at least 1.
        ran_s: how long it has run.
        ages_s: how long ago each of its failures was.
    """
    expected_s = NODE_APART_S / nodes
    watched_s = HALF_LIFE_S / math.log(2.0) * (1.0 - _left_of(ran_s))
    failures = sum(_left_of(age_s) for age_s in ages_s)
    apart_s = (PRIOR_S + watched_s) / (PRIOR_S / expected_s + failures)
    seen = format_count(len(ages_s), "failure") if ages_s else "none"
    expected = f"one in {format_duration(expected_s)} is expected of {format_count(nodes, 'node')}"
    return FailureRate(apart_s=apart_s, because=f"{seen} in {format_duration(ran_s)}; {expected}")


def _left_of(age_s: float) -> float:
    """How much something counts that is so long ago."""
    return float(2.0 ** (-max(0.0, age_s) / HALF_LIFE_S))
