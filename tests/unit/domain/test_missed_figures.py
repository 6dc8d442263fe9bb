"""Figures that went to another controller: noted as missed, counted once when they come after all.

Without it a curve could have holes after a fail-over, or time be counted twice.
"""

from __future__ import annotations

from random import Random

import pytest

from trainctl.controller.domain import step_ranges
from trainctl.controller.domain.job_state import JobState
from trainctl.controller.domain.reconcile import observe_figures
from trainctl.controller.domain.states import JobPhase
from trainctl.controller.domain.step_ranges import Ranges
from trainctl.controller.metrics.jobs import job_samples
from trainctl.core.records.spec import NodesSpec
from unit.domain.domain_sim import Simulation, sim_job
from unit.domain.sample_figures import figure


def steps_of(ranges: Ranges) -> set[int]:
    return {step for first, last in step_ranges.pairs(ranges) for step in range(first, last + 1)}


def counters(state: JobState, *, since_s: float) -> dict[str, float]:
    """The counters of what was trained, as they are shown."""
    found = job_samples(state, since_s + 1.0, since_s=since_s)
    return {
        name: value for name, _, value in found if name in ("trainctl_job_tokens_total", "trainctl_job_samples_total")
    }


@pytest.mark.parametrize("seed", range(20))
def test_ranges_are_the_sets_of_their_steps(seed: int) -> None:
    rng = Random(seed)
    ranges: Ranges = ()
    wanted: set[int] = set()
    end = 0
    for _ in range(rng.randrange(1, 12)):
        first = end + rng.randrange(2, 9)
        end = first + rng.randrange(-1, 7)
        ranges = step_ranges.appended(ranges, first, end)
        wanted |= set(range(first, end + 1))
        end = max(end, first)
    assert steps_of(ranges) == wanted
    for step in rng.sample(range(end + 3), min(end + 3, 15)):
        assert step_ranges.contains(ranges, step) == (step in wanted)
        assert steps_of(step_ranges.up_to(ranges, step)) == {known for known in wanted if known <= step}
        ranges = step_ranges.without(ranges, step)
        wanted.discard(step)
        assert (steps_of(ranges), step_ranges.count(ranges)) == (wanted, len(wanted))


@pytest.mark.parametrize("seed", range(5))
def test_what_was_missed_is_counted_once_in_whatever_order_it_comes(seed: int) -> None:
    rng = Random(seed)
    sim = Simulation(7, sim_job(nodes=NodesSpec(min=2, max=2), per_node=2, steps=400), agents=2, slots=2, fault_rate=0)
    sim.until(JobPhase.RUNNING)
    before = sim.state
    begun, now_s = before.progress.step, sim.now_s
    later = begun + rng.randrange(5, 60)
    tokens = {step: rng.randrange(1, 1000) for step in range(begun + 1, later + 1)}
    state = observe_figures(before, [figure(before, later, tokens=tokens[later])], now_s).state
    assert steps_of(state.progress.missed) == set(range(begun + 1, later))
    assert "trainctl_job_tokens_total" not in counters(state, since_s=now_s)
    left = list(tokens)
    rng.shuffle(left)
    while left:
        some = [left.pop() for _ in range(min(len(left), rng.randrange(1, 9)))]
        for _ in range(2):  # what comes twice is counted once
            state = observe_figures(state, [figure(before, step, tokens=tokens[step]) for step in some], now_s).state
    assert state.progress.missed == ()
    assert state.progress.tokens == before.progress.tokens + sum(tokens.values())
    assert state.progress.step == later
    assert counters(state, since_s=now_s)["trainctl_job_tokens_total"] == state.progress.tokens


def test_counters_are_not_shown_before_the_new_leader_has_heard_of_the_job() -> None:
    sim = Simulation(7, sim_job(nodes=NodesSpec(min=2, max=2), per_node=2, steps=400), agents=2, slots=2, fault_rate=0)
    sim.until(JobPhase.RUNNING)
    shown = observe_figures(sim.state, [figure(sim.state, sim.state.progress.step + 1, tokens=7)], sim.now_s).state
    assert set(counters(shown, since_s=sim.now_s)) == {"trainctl_job_tokens_total", "trainctl_job_samples_total"}
    assert counters(shown, since_s=sim.now_s + 1.0) == {}
