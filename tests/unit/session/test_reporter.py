"""Who tells the controller of committed steps, when those who should have told it die one after the other.

Without it a curve could have a hole after two deaths: what the first one had not said was lost with the second.
"""

from __future__ import annotations

from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from trainctl.core.records.spec import JobSpec
from trainctl.core.records.step import StepFigures
from trainctl.parallel.bridge import Figures
from trainctl.parallel.session.reporter import Reporter
from unit.generation_records import generation_record, member

WORLD = 4


def figures(step: int, generation: int) -> StepFigures:
    return StepFigures(
        step=step, generation=generation, lineage=1, loss=1.0, learning_rate=0.1, gradient_norm=1.0, tokens=8,
        cursor=8 * step, sample_digest=step, step_s=0.1, vote_s=0.01, reduce_s=0.01, wall_s=0.0,
    )  # fmt: skip


class Worker:
    """One life of a slot."""

    def __init__(self, incarnation: int) -> None:
        self.incarnation = incarnation
        self.said: list[int] = []
        """Steps that are on their way to the controller: lost if it dies."""
        desired = SimpleNamespace(workdir="", job_uid="u", job_name="j", incarnation=incarnation)
        context: Any = SimpleNamespace(desired=desired, spec=JobSpec(), control=self)
        self.reporter = Reporter(context, steps=1000, hooks=())

    def send(self, message: Figures) -> None:
        self.said += [one.step for one in message.figures]


class Job:
    """A world whose workers die between two steps, and are replaced."""

    def __init__(self) -> None:
        self.workers = [Worker(1 + slot) for slot in range(WORLD)]
        self.arrived: list[int] = []
        self.step = 0
        self._generation = 0
        self._lives = WORLD
        self._enter(holders=())

    def replace(self, *slots: int) -> None:
        """They die with all that they have said lately; others take their places."""
        for slot in slots:
            self._lives += 1
            self.workers[slot] = Worker(self._lives)
        self._arrive()
        self._enter(holders=tuple(slot for slot in range(WORLD) if slot not in slots))

    def train(self, steps: int, *, last_is_told: bool = True) -> None:
        for left in reversed(range(steps)):
            self.step += 1
            for worker in self.workers:
                worker.reporter.note_commit(figures(self.step, self._generation))
            if left or last_is_told:
                self.tell()

    def tell(self) -> None:
        for rank, worker in enumerate(self.workers):
            worker.reporter.send(self._seat(rank))

    def _arrive(self) -> None:
        for worker in self.workers:
            self.arrived += worker.said
            worker.said.clear()

    def end(self) -> list[int]:
        """All that the controller was told."""
        self.tell()
        self._arrive()
        return sorted(set(self.arrived))

    def _enter(self, holders: tuple[int, ...]) -> None:
        self._generation += 1
        members = tuple(member(rank, incarnation=worker.incarnation) for rank, worker in enumerate(self.workers))
        self._record = generation_record(self._generation, members=members, target_step=self.step, holders=holders)
        shared = self.workers[min(holders)].reporter.recent(self._record) if holders else []
        for rank, worker in enumerate(self.workers):
            came = tuple(shared) if holders and rank not in holders else ()
            worker.reporter.note_entry(self._seat(rank, came))

    def _seat(self, rank: int, came: tuple[Any, ...] = ()) -> Any:
        membership = SimpleNamespace(figures=came)
        return SimpleNamespace(record=self._record, membership=membership, group=SimpleNamespace(rank=rank))


def test_every_step_is_told_of_once_where_nobody_dies() -> None:
    job = Job()
    job.train(5)
    assert [step for worker in job.workers for step in worker.said] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("told", [True, False], ids=["before-it-arrived", "before-it-was-said"])
def test_what_the_reporter_had_not_said_is_said_by_its_successor(told: bool) -> None:
    job = Job()
    job.train(6, last_is_told=told)
    job.replace(0)
    assert job.end() == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("second", [0, 1, 2, 3])
@pytest.mark.parametrize("told", [True, False], ids=["after-it-told", "before-it-told"])
def test_a_second_death_in_the_next_generation_loses_nothing(second: int, told: bool) -> None:
    job = Job()
    job.train(6, last_is_told=False)
    job.replace(0)
    if told:
        job.tell()
    job.replace(second)
    assert job.end() == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("seed", range(30))
def test_whoever_dies_every_step_is_told_of(seed: int) -> None:
    rng = Random(seed)
    job = Job()
    for _ in range(10):
        job.train(rng.randrange(4), last_is_told=rng.random() < 0.5)
        job.replace(*rng.sample(range(WORLD), rng.randrange(1, WORLD)))
    assert job.end() == list(range(1, job.step + 1))
