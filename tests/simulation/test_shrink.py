"""Without it a failed seed would be shown as forty faults, or as fewer that have nothing to do with the failure."""

from __future__ import annotations

import random
from collections.abc import Sequence

from simulation.plan import JobPlan, Plan, Step
from simulation.seeds import plan_of
from simulation.shrink import shrunk, smallest


def test_what_is_left_is_needed_and_enough() -> None:
    chance = random.Random(4)
    for _ in range(50):
        size = chance.randint(1, 40)
        guilty = set(chance.sample(range(size), chance.randint(1, min(3, size))))
        assert set(smallest(range(size), guilty.issubset)) == guilty
    assert smallest(range(10), lambda items: True) == ()


def test_it_takes_few_tries() -> None:
    tries: list[int] = []

    def breaks(items: Sequence[int]) -> bool:
        tries.append(len(items))
        return 17 in items

    assert smallest(range(40), breaks) == (17,)
    assert len(tries) < 40


def test_a_plan_loses_steps_and_jobs() -> None:
    guilty = Step(at_s=9.0, kind="lease_gone")

    def breaks(plan: Plan) -> bool:
        return guilty in plan.steps and any(job.name == "job-1" for job in plan.jobs)

    plan = plan_of(1)
    jobs = tuple(JobPlan(name=f"job-{number}", at_s=0.0, least=1, most=1) for number in range(3))
    small = shrunk(plan.with_jobs(jobs).with_steps((*plan.steps[:20], guilty, *plan.steps[20:])), breaks)
    assert small.steps == (guilty,)
    assert [job.name for job in small.jobs] == ["job-1"]
