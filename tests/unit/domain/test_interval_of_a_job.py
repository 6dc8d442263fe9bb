"""A job that saves by time: what its workers are told, when that changes, and what people are told about it.

Without it workers could save at other times than people are told.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from trainctl.controller.domain import events
from trainctl.controller.domain.desired import desired_workers
from trainctl.controller.domain.events import EventDraft
from trainctl.controller.domain.explain import explain, plan_sentences
from trainctl.controller.domain.job_state import JobState
from trainctl.controller.domain.save_interval import FIRST_S
from trainctl.controller.domain.states import JobPhase
from trainctl.controller.domain.submit import new_job
from trainctl.core.codec import from_wire, to_wire
from trainctl.core.records.spec import NodesSpec
from trainctl.core.records.worker import WorkerDesired
from trainctl.core.units import format_duration
from unit.domain.domain_sim import Simulation, sim_job
from unit.domain.intervals import DAY_S, fails, interval, passes, started
from unit.domain.one_job import wait_for


def told(sim: Simulation) -> set[float]:
    everybody = [worker for workers in desired_workers(sim.state).values() for worker in workers]
    return {worker.checkpoint_interval_s for worker in everybody}


def chosen(sim: Simulation) -> list[EventDraft]:
    return [event for event in sim.events if event.type == events.CHECKPOINT_INTERVAL]


def test_it_begins_with_what_it_does_not_know_and_the_first_checkpoint_tells() -> None:
    sim = started("auto")
    assert interval(sim).interval_s == FIRST_S
    assert told(sim) == {FIRST_S}
    wait_for(sim, lambda: bool(sim.state.checkpoints))
    begun_s = sim.state.checkpoints[0].committed_s - sim.state.started_s
    assert FIRST_S - 10 < begun_s < FIRST_S + 10
    wait_for(sim, lambda: interval(sim).cost_s is not None)
    assert interval(sim).interval_s == pytest.approx((2 * 0.5 * 50 * DAY_S) ** 0.5, rel=0.01)
    assert told(sim) == {interval(sim).interval_s}
    first, second = chosen(sim)
    assert (first.reason, second.reason) == ("First", "Longer")
    assert first.message.startswith("a checkpoint every 1m00s: no checkpoint was made yet")
    assert second.message.startswith("a checkpoint every 34m")
    assert " instead of every 1m00s: a checkpoint costs 0.50s of training (waiting for it, of one)" in second.message
    assert second.fields == {"interval_s": f"{interval(sim).interval_s:.3f}"}


def test_a_burst_of_failures_makes_it_shorter_and_quiet_days_longer_again() -> None:
    sim = started("auto")
    wait_for(sim, lambda: interval(sim).cost_s is not None)
    calm = interval(sim)
    for _ in range(4):
        fails(sim)
    burst = interval(sim)
    assert burst.interval_s < calm.interval_s / 5
    assert burst.waste is not None
    assert calm.waste is not None
    assert burst.waste > calm.waste
    shorter = chosen(sim)[2:]
    assert {event.reason for event in shorter} == {"Shorter"}
    assert "(3 failures in " in shorter[-1].message
    assert "for each recovery" in shorter[-1].message
    assert told(sim) == {burst.interval_s}
    for _ in range(14):
        passes(sim, DAY_S)
    assert sim.state.recovery_count == 4
    assert interval(sim).interval_s > 4 * burst.interval_s
    later = chosen(sim)[2 + len(shorter) :]
    assert {event.reason for event in later} == {"Longer"}
    assert 2 <= len(later) <= 14, "step by step, and no more often than it matters"


def test_it_changes_no_more_often_than_what_it_is_chosen_from() -> None:
    sim = started("auto")
    wait_for(sim, lambda: interval(sim).cost_s is not None)
    before = len(chosen(sim))
    for _ in range(600):
        sim.cluster.stall_s = 0.5 * sim.rng.uniform(0.8, 1.2)
        sim.cluster.saved_s = -1e9  # a checkpoint after each step
        sim.tick()
    assert len(sim.state.checkpoints) > 2
    assert len(chosen(sim)) == before


def test_another_leader_says_the_same() -> None:
    sim = started("auto")
    wait_for(sim, lambda: interval(sim).cost_s is not None)
    fails(sim)
    before, count, wanted = sim.state, len(chosen(sim)), told(sim)
    sim.restart_controller(1.0)
    assert sim.state.checkpoint_interval == before.checkpoint_interval
    assert sim.state.save_costs == before.save_costs
    wait_for(sim, lambda: sim.state.epoch == sim.epoch)
    assert (told(sim), len(chosen(sim))) == (wanted, count)


def test_what_an_older_controller_left_is_chosen_anew() -> None:
    sim = started("auto")
    wire = sim.state.to_wire()
    for field in ("checkpointInterval", "saveCosts"):
        wire.pop(field, None)
    sim.state = JobState.from_wire(wire)
    assert told(sim) == {0.0}, "workers count steps"
    wait_for(sim, lambda: sim.state.checkpoint_interval is not None, 10.0)
    assert told(sim) == {FIRST_S}


def test_a_worker_of_an_older_controller_is_told_nothing() -> None:
    sim = started("10m")
    (order, *_) = next(iter(desired_workers(sim.state).values()))
    assert order.checkpoint_interval_s == 600.0
    wire = to_wire(order)
    del wire["checkpointIntervalS"]
    assert from_wire(WorkerDesired, wire) == replace(order, checkpoint_interval_s=0.0)


def test_a_time_in_the_job_file_is_what_workers_are_told() -> None:
    sim = started("20s")
    assert told(sim) == {20.0}
    wait_for(sim, lambda: len(sim.state.checkpoints) == 2)
    first, second = (ref.committed_s for ref in sim.state.checkpoints)
    assert 19.0 < second - first < 30.0
    fails(sim)
    assert told(sim) == {20.0}
    (event,) = chosen(sim)
    assert event.message == "a checkpoint every 20s: spec.checkpoint.interval says so"
    assert sim.state.save_costs == ()


def test_without_it_steps_are_counted() -> None:
    sim = started("")
    wait_for(sim, lambda: bool(sim.state.checkpoints))
    assert (told(sim), chosen(sim), sim.state.checkpoint_interval) == ({0.0}, [], None)
    assert sim.state.save_costs == ()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("auto", "a checkpoint as often as pays, by what one costs and how often the job fails"),
        ("10m", "a checkpoint every 10m"),
        ("", "a checkpoint every 100 steps"),
    ],
)
def test_a_dry_run_says_how_often(text: str, sentence: str) -> None:
    job = sim_job(nodes=NodesSpec(min=1, max=1), per_node=1, interval=text)
    state, _ = new_job("u", job, workdir="w", now_s=1.0)
    assert any(sentence in line for line in plan_sentences(state))
    assert not any("snapshot" in line for line in plan_sentences(state)), "it makes none"


def test_explain_says_why_as_long_as_the_job_runs() -> None:
    sim = started("auto")
    wait_for(sim, lambda: interval(sim).cost_s is not None)
    (line,) = [line for line in explain(sim.state, sim.now_s) if "a checkpoint is made every" in line]
    assert line == f"a checkpoint is made every {format_duration(interval(sim).interval_s)}: {interval(sim).reason}"
    sim.cancel()
    sim.until(JobPhase.CANCELLED)
    assert not [line for line in explain(sim.state, sim.now_s) if "a checkpoint is made every" in line]
