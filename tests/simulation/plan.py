"""What happens in a run, as data: drawn from a seed, written to a file, made smaller."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from trainctl.core.codec import from_wire, to_wire

FAULTS = 40
VERBS = 10
BEGIN_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing that somebody does to the system.

    Attributes:
        at_s: seconds after the beginning.
        kind: name of a nemesis, or of a wish.
        who: number of the machine or job that it hits, counted over those there are.
        for_s: until it is undone.
        count: how much of it.
    """

    at_s: float
    kind: str
    who: int = 0
    for_s: float = 0.0
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPlan:
    """A job: its size, and when it is submitted."""

    name: str
    at_s: float
    least: int
    most: int
    per_node: int = 1
    steps: int = 100
    profile: str = "fast"

    def wire(self) -> dict[str, Any]:
        """The job file."""
        return {
            "metadata": {"name": self.name},
            "spec": {
                "nodes": {"min": self.least, "max": self.most},
                "resources": {"workersPerNode": self.per_node},
                "recovery": {"profile": self.profile, "maxRestarts": {"user": 1000, "process": 1000}},
                "checkpoint": {"intervalSteps": 7},
                "train": {
                    "steps": self.steps,
                    "data": {"uri": "python-stdlib"},
                    "batch": {"sequences": 16, "microBatches": 16},
                },
            },
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A whole run.

    Attributes:
        seed: of everything that is drawn while it runs.
        controllers: machines with one each.
        nodes: machines with an agent each.
        slots: of each agent.
        jobs: what is submitted.
        steps: what goes wrong, and what people ask for, by time.
        quiet_s: from then on nothing goes wrong any more, and everybody wants the jobs to end.
    """

    seed: int
    controllers: int = 2
    nodes: int = 5
    slots: int = 2
    jobs: tuple[JobPlan, ...] = ()
    steps: tuple[Step, ...] = ()
    quiet_s: float = 100.0

    def to_json(self) -> str:
        """One line a step."""
        data: dict[str, Any] = to_wire(self)
        jobs, steps = data.pop("jobs"), data.pop("steps")
        head = ", ".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in data.items())
        return f'{{{head},\n "jobs": [\n{_lines(jobs)}\n ],\n "steps": [\n{_lines(steps)}\n ]}}\n'

    @staticmethod
    def from_json(text: str) -> Plan:
        """Reads what ``to_json`` wrote."""
        return from_wire(Plan, json.loads(text))

    def with_steps(self, steps: Sequence[Step]) -> Plan:
        """The same run with other things going wrong."""
        return replace(self, steps=tuple(steps))

    def with_jobs(self, jobs: Sequence[JobPlan]) -> Plan:
        """The same run with other jobs."""
        return replace(self, jobs=tuple(jobs))


def draw(seed: int, kinds: Mapping[str, tuple[float, float]], wishes: Sequence[str]) -> Plan:
    """A run of ``FAULTS`` faults of a few kinds, with wishes in between: which kinds, is drawn for each run (swarm).

    Args:
        seed: of the run.
        kinds: shortest and longest duration of each nemesis, seconds.
        wishes: what people may ask for.
    """
    chance = Random(seed)
    names = sorted(kinds)
    chosen = chance.sample(names, chance.randint(3, min(9, len(names))))
    length_s = chance.choice((60.0, 90.0, 120.0))
    steps = [_fault(chance, chance.choice(chosen), kinds, length_s) for _ in range(FAULTS)]
    asked = chance.sample(list(wishes), chance.randint(1, len(wishes)))
    steps += [
        Step(at_s=_time(chance, length_s), kind=chance.choice(asked), who=chance.randrange(100),
             count=chance.randint(1, 4))
        for _ in range(chance.choice((0, VERBS // 2, VERBS)))
    ]  # fmt: skip
    nodes = chance.randint(3, 6)
    jobs = tuple(_job(chance, number, nodes) for number in range(chance.randint(2, 4)))
    ordered = tuple(sorted(steps, key=lambda step: step.at_s))
    return Plan(
        seed=seed, controllers=chance.choice((1, 2, 2, 3)), nodes=nodes, jobs=jobs, steps=ordered,
        quiet_s=BEGIN_S + length_s,
    )  # fmt: skip


def _fault(chance: Random, kind: str, kinds: Mapping[str, tuple[float, float]], length_s: float) -> Step:
    shortest_s, longest_s = kinds[kind]
    for_s = round(min(shortest_s * (longest_s / shortest_s) ** chance.random(), length_s), 2) if longest_s else 0.0
    return Step(
        at_s=_time(chance, length_s), kind=kind, who=chance.randrange(100), for_s=for_s, count=chance.randint(1, 3)
    )


def _time(chance: Random, length_s: float) -> float:
    return round(BEGIN_S + chance.random() * length_s, 2)


def _job(chance: Random, number: int, nodes: int) -> JobPlan:
    least = chance.randint(1, min(2, nodes))
    return JobPlan(
        name=f"job-{number}",
        at_s=round(chance.choice((0.0, chance.uniform(0.0, 40.0))), 2),
        least=least,
        most=chance.randint(least, min(3, nodes)),
        per_node=chance.choice((1, 1, 2)),
        steps=chance.choice((60, 120, 200)),
    )


def _lines(items: Sequence[Any]) -> str:
    return ",\n".join(f"  {json.dumps(item)}" for item in items)
