"""From a run that breaks something to the smallest one that still does: delta debugging of what goes wrong in it.

Source: A. Zeller, R. Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", IEEE TSE 28 (2002), ``ddmin``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from simulation.plan import Plan

T = TypeVar("T")


def shrunk(plan: Plan, breaks: Callable[[Plan], bool]) -> Plan:
    """The plan with as few steps and jobs as still break it; every single one of them is needed.

    Args:
        plan: that breaks.
        breaks: runs a plan.
    """
    plan = plan.with_steps(smallest(plan.steps, lambda steps: breaks(plan.with_steps(steps))))
    jobs = smallest(plan.jobs, lambda jobs: bool(jobs) and breaks(plan.with_jobs(jobs)))
    plan = plan.with_jobs(jobs)
    return plan.with_steps(smallest(plan.steps, lambda steps: breaks(plan.with_steps(steps))))


def smallest(items: Sequence[T], breaks: Callable[[Sequence[T]], bool]) -> tuple[T, ...]:
    """A part of ``items`` that breaks, from which nothing can be left out."""
    items = tuple(items)
    parts = 2
    while len(items) >= 2:
        size = max(1, len(items) // parts)
        without = (items[:at] + items[at + size :] for at in range(0, len(items), size))
        smaller = next((rest for rest in without if breaks(rest)), None)
        if smaller is not None:
            items, parts = smaller, max(parts - 1, 2)
        elif size == 1:
            break
        else:
            parts = min(2 * parts, len(items))
    if len(items) == 1 and breaks(()):
        return ()
    return items
