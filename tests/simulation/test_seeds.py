"""A quick share of the seeds; ``make chaos`` runs a thousand.

Without it a rare order of failures could lose a job, and be found by users.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from simulation.nemeses import NEMESES, SCENARIOS_ONLY
from simulation.plan import FAULTS, Plan
from simulation.scenario import FOUND, load
from simulation.seeds import judge, judge_seed, plan_of
from simulation.wishes import WISHES


@pytest.mark.parametrize("name", sorted(path.stem for path in FOUND.glob("*.json")))
def test_runs_that_found_a_bug_once(name: str) -> None:
    found = load(FOUND / f"{name}.json")
    verdict = judge(found.plan)
    assert not verdict.violations, f"{found.about}\n{verdict}"


@pytest.mark.parametrize("seed", range(100, 103))
def test_a_quick_share(seed: int) -> None:
    verdict = judge_seed(seed)
    assert not verdict.violations, str(verdict)


def test_every_plan_has_its_faults_and_plans_are_data() -> None:
    kinds: set[str] = set()
    for seed in range(200):
        plan = plan_of(seed)
        assert sum(step.kind in NEMESES for step in plan.steps) == FAULTS
        assert Plan.from_json(plan.to_json()) == plan
        kinds |= {step.kind for step in plan.steps}
    assert kinds == set(NEMESES) - SCENARIOS_ONLY | set(WISHES), "everything that can happen does, in some run"


def test_the_same_seed_is_the_same_run_to_the_bit_also_elsewhere() -> None:
    plan = plan_of(5)
    plan = replace(plan, steps=plan.steps[:12], jobs=plan.jobs[:1], nodes=3, quiet_s=25.0)
    here = judge(plan).digest
    assert here == judge(plan).digest
    program = (
        "import sys; from simulation.plan import Plan; from simulation.seeds import judge; "
        "print(judge(Plan.from_json(sys.stdin.read())).digest)"
    )
    paths = os.pathsep.join(path for path in sys.path if path)
    for hash_seed in ("1", "77"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            input=plan.to_json(),
            env={**os.environ, "PYTHONPATH": paths, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            timeout=50,
            check=True,
        )
        assert done.stdout.strip() == here


def test_a_broken_run_says_how_to_repeat_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulation.seeds.violations", lambda history: ["I1: broken"])
    verdict = judge(replace(plan_of(3), steps=(), jobs=(), quiet_s=3.0))
    assert "I1: broken" in str(verdict)
    assert "python -m simulation --seed 3 --shrink" in str(verdict)
