"""What agents tell late, because nobody led: it counts from when it happened, whatever they say.

Without it an outage of the controllers could be charged to a job as lost time.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from trainctl.controller.domain.late import happened_s
from trainctl.controller.domain.reconcile import observe_checkpoint, observe_figures
from trainctl.controller.domain.states import JobPhase
from trainctl.core.records.spec import NodesSpec
from unit.domain.domain_sim import Simulation, sim_job
from unit.domain.sample_figures import figure
from unit.domain.sample_reports import saved


@pytest.fixture
def sim() -> Simulation:
    sim = Simulation(7, sim_job(nodes=NodesSpec(min=1, max=1), per_node=2, steps=400), agents=1, slots=2, fault_rate=0)
    sim.until(JobPhase.RUNNING)
    return sim


@pytest.mark.parametrize(
    ("age_s", "after_s", "expected_s"),
    [
        (0.0, 10.0, 100.0),
        (30.0, 10.0, 70.0),
        (95.0, 10.0, 10.0),
        (-5.0, 10.0, 100.0),
        (float("nan"), 10.0, 100.0),
        (float("inf"), 10.0, 10.0),
        (0.0, 120.0, 100.0),
    ],
)
def test_no_age_leads_into_the_future_or_before_what_went_before(
    age_s: float, after_s: float, expected_s: float
) -> None:
    assert happened_s(age_s, 100.0, after_s=after_s) == expected_s


def test_a_checkpoint_is_as_old_as_its_agent_says(sim: Simulation) -> None:
    now_s = sim.now_s + 600.0
    result = observe_checkpoint(sim.state, saved(sim.state, 100, age_s=300.0), now_s)
    assert result.state.checkpoints[-1].committed_s == now_s - 300.0
    (event,) = result.events
    assert event.fields["age_s"] == "300.0"
    assert "that was 5m00s before a leader heard of it" in event.message
    assert observe_checkpoint(result.state, saved(sim.state, 100, age_s=400.0), now_s).state == result.state


def test_checkpoints_do_not_change_their_order_whatever_their_ages(sim: Simulation) -> None:
    now_s = sim.now_s + 600.0
    state = observe_checkpoint(sim.state, saved(sim.state, 100, age_s=300.0), now_s).state
    second = observe_checkpoint(state, saved(state, 101, age_s=500.0), now_s)
    assert [ref.committed_s for ref in second.state.checkpoints][-2:] == [now_s - 300.0, now_s - 300.0]
    assert second.events[0].fields["age_s"] == "300.0"
    first = observe_checkpoint(sim.state, saved(sim.state, 100, age_s=1e9), now_s).state
    assert first.checkpoints[-1].committed_s == max(
        [sim.state.started_s, *(ref.committed_s for ref in sim.state.checkpoints)]
    )


def test_what_is_told_at_once_has_no_word_about_it(sim: Simulation) -> None:
    result = observe_checkpoint(sim.state, saved(sim.state, 100, age_s=0.01), sim.now_s)
    assert "age_s" not in result.events[0].fields
    assert "heard" not in result.events[0].message
    failed = observe_checkpoint(sim.state, saved(sim.state, 100, age_s=60.0, error="disk full"), sim.now_s + 100.0)
    assert "that was 1m00s before" in failed.events[0].message


def test_figures_from_a_file_are_as_old_as_their_node_says(sim: Simulation) -> None:
    step, now_s = sim.state.progress.step + 1, sim.now_s + 600.0
    old = replace(figure(sim.state, step, tokens=7), wall_s=sim.now_s + 60.0)
    assert observe_figures(sim.state, [old], now_s).state.progress.updated_s == now_s
    assert observe_figures(sim.state, [old], now_s, live=False).state.progress.updated_s == sim.now_s + 60.0
    ahead = replace(old, wall_s=now_s + 999.0)
    assert observe_figures(sim.state, [ahead], now_s, live=False).state.progress.updated_s == now_s
    unset = replace(old, wall_s=0.0)
    known = observe_figures(sim.state, [unset], now_s, live=False).state.progress
    assert known.updated_s == sim.state.progress.updated_s
