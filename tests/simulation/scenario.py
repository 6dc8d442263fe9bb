"""Plans in files: golden scenarios with the events that they lead to, and runs that found a bug once."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from simulation.history import outline, read
from simulation.invariants import violations
from simulation.plan import Plan
from simulation.world import Ran, play

FOLDER = Path(__file__).parent / "scenarios"
FOUND = Path(__file__).parent / "found"
"""Here what happens is not written down: only the invariants have to hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What a file holds.

    Attributes:
        about: one sentence.
        plan: what happens.
        expect: who leads and what becomes of the jobs, in order; empty: that does not matter.
    """

    about: str
    plan: Plan
    expect: tuple[str, ...] = ()

    def to_json(self) -> str:
        head = f'{{"about": {json.dumps(self.about)},\n"plan": {self.plan.to_json()}'
        if not self.expect:
            return f"{head}}}\n"
        expect = ",\n".join(f"  {json.dumps(line)}" for line in self.expect)
        return f'{head},\n"expect": [\n{expect}\n]}}\n'


def load(path: Path) -> Scenario:
    """Reads one."""
    data = json.loads(path.read_text())
    plan = Plan.from_json(json.dumps(data["plan"]))
    return Scenario(about=data["about"], plan=plan, expect=tuple(data.get("expect", ())))


def seen(scenario: Scenario) -> tuple[Ran, tuple[str, ...], list[str]]:
    """The run, its events, and what is wrong with it."""
    ran = play(scenario.plan)
    return ran, tuple(outline(ran)), violations(read(ran))


def keep(plan: Plan, about: str) -> Path:
    """Writes down a run that found a bug, so that it stays what it is when seeds come to mean other plans."""
    path = FOUND / f"seed_{plan.seed}.json"
    path.write_text(Scenario(about=about, plan=plan).to_json())
    return path


def rewrite(path: Path) -> None:
    """Takes what happens now for what is expected; to be read before it is committed."""
    scenario = load(path)
    _, lines, _ = seen(scenario)
    path.write_text(replace(scenario, expect=lines).to_json())
