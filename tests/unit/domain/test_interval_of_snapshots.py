"""A job that makes snapshots by time: what its workers are told, when that changes, and what people are told of it.

Without it workers could make snapshots at other times than people are told.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from trainctl.controller.domain import events
from trainctl.controller.domain.desired import desired_workers
from trainctl.controller.domain.events import EventDraft
from trainctl.controller.domain.explain import explain, plan_sentences
from trainctl.controller.domain.job_state import JobState
from trainctl.controller.domain.save_cost import COSTS_KEPT
from trainctl.controller.domain.save_interval import FIRST_S, SNAPSHOT_FIRST_S, CheckpointInterval
from trainctl.controller.domain.submit import new_job
from trainctl.controller.jobs.job_message import job_message
from trainctl.core.codec import from_wire, to_wire
from trainctl.core.records.spec import NodesSpec
from trainctl.core.records.worker import WorkerDesired
from trainctl.core.units import format_duration
from unit.domain.domain_sim import Simulation, sim_job
from unit.domain.intervals import DAY_S, fails, passes, started
from unit.domain.one_job import record, trained, wait_for, worker
from unit.domain.sample_snapshots import snapshot


def interval(sim: Simulation) -> CheckpointInterval:
    found = sim.state.snapshot_interval
    assert found is not None
    return found


def told(sim: Simulation) -> set[float]:
    everybody = [worker for workers in desired_workers(sim.state).values() for worker in workers]
    return {worker.snapshot_interval_s for worker in everybody}


def chosen(sim: Simulation) -> list[EventDraft]:
    return [event for event in sim.events if event.type == events.SNAPSHOT_INTERVAL]


def snapped(sim: Simulation, *, stall_s: float = 0.01, seconds: float = 0.2) -> None:
    """One more is complete; the worker that waited longest waited so long, as both nodes say."""
    trained(sim, sim.state.progress.step + 2)
    snapshot(sim, stall_s=(stall_s, stall_s), seconds=seconds)


def measured(sim: Simulation) -> CheckpointInterval:
    snapped(sim)
    wait_for(sim, lambda: interval(sim).cost_s is not None)
    return interval(sim)


def test_it_begins_with_what_it_does_not_know_and_the_first_snapshot_tells() -> None:
    sim = started("", snapshots="auto")
    assert interval(sim).interval_s == SNAPSHOT_FIRST_S
    assert told(sim) == {SNAPSHOT_FIRST_S}
    after = measured(sim)
    assert after.interval_s == pytest.approx((2 * after.cost_s * 50 * DAY_S) ** 0.5, rel=0.01)  # type: ignore[operator]
    assert told(sim) == {after.interval_s}
    first, second = chosen(sim)
    assert (first.reason, second.reason) == ("First", "Longer")
    assert first.message == "a snapshot every 10s: no snapshot was made yet: the first one shows what one costs"
    assert second.message.startswith(f"a snapshot every {format_duration(after.interval_s)} instead of every 10s: ")
    assert "a snapshot costs 0.01s of training (" in second.message
    assert second.fields == {"interval_s": f"{after.interval_s:.3f}"}
    assert sim.state.checkpoint_interval is None, "checkpoints are another matter"


def test_what_both_nodes_tell_again_and_again_is_one_snapshot() -> None:
    sim = started("", snapshots="auto")
    measured(sim)
    for _ in range(20):
        sim.tick()
    (cost,) = sim.state.snapshot_figures.costs
    assert (cost.stall_s, cost.seconds) == (0.01, 0.2)
    for _ in range(COSTS_KEPT + 2):
        snapped(sim, stall_s=0.02)
    assert [cost.stall_s for cost in sim.state.snapshot_figures.costs] == [0.02] * COSTS_KEPT


def test_the_steps_beside_it_count_as_they_do_for_a_checkpoint() -> None:
    """0.4 and 0.2 s longer than the usual 0.5 s, of which training stood still for 0.1 s."""
    sim = started("", snapshots="auto")
    trained(sim, 8)
    step = max(one.applied for one in sim.cluster.workers())
    progress = replace(sim.state.progress, step=step + 2, recent_step_s=(*(0.5,) * 6, 0.9, 0.7))
    sim.state = replace(sim.state, progress=progress)
    snapshot(sim, stall_s=(0.1, 0.1), seconds=1.4)
    (cost,) = sim.state.snapshot_figures.costs
    assert (cost.stall_s, cost.seconds) == (0.1, 1.4)
    assert cost.slowdown_s == pytest.approx(0.5)


def test_a_burst_of_failures_makes_it_shorter_and_quiet_days_longer_again() -> None:
    sim = started("", snapshots="auto")
    calm = measured(sim)
    for _ in range(4):
        fails(sim)
    burst = interval(sim)
    assert burst.interval_s < calm.interval_s / 5
    shorter = chosen(sim)[2:]
    assert {event.reason for event in shorter} == {"Shorter"}
    assert "(3 failures in " in shorter[-1].message
    assert "between snapshots lose least" in shorter[-1].message
    assert told(sim) == {burst.interval_s}
    for _ in range(14):
        passes(sim, DAY_S)
    assert interval(sim).interval_s > 4 * burst.interval_s
    later = chosen(sim)[2 + len(shorter) :]
    assert {event.reason for event in later} == {"Longer"}
    assert 2 <= len(later) <= 14, "step by step, and no more often than it matters"


def test_checkpoints_and_snapshots_are_chosen_each_for_itself() -> None:
    sim = started("auto", snapshots="auto")
    assert sim.state.checkpoint_interval is not None
    assert sim.state.checkpoint_interval.interval_s == FIRST_S
    after = measured(sim)
    wait_for(sim, lambda: bool(sim.state.save_costs))
    dear = sim.state.checkpoint_interval
    assert dear is not None
    assert dear.interval_s > 5 * after.interval_s, "0.5 s against 0.01 s"
    orders = [order for agent in desired_workers(sim.state).values() for order in agent]
    assert {(one.checkpoint_interval_s, one.snapshot_interval_s) for one in orders} == {
        (dear.interval_s, after.interval_s)
    }


def test_another_leader_says_the_same() -> None:
    sim = started("", snapshots="auto")
    measured(sim)
    fails(sim)
    before, count, wanted = sim.state, len(chosen(sim)), told(sim)
    sim.restart_controller(1.0)
    assert sim.state.snapshot_interval == before.snapshot_interval
    assert sim.state.snapshot_figures.costs == before.snapshot_figures.costs
    wait_for(sim, lambda: sim.state.epoch == sim.epoch)
    assert (told(sim), len(chosen(sim))) == (wanted, count)


def test_what_an_older_controller_left_is_chosen_anew() -> None:
    sim = started("", snapshots="auto")
    measured(sim)
    wire = sim.state.to_wire()
    figures = wire["snapshotFigures"]
    assert isinstance(figures, dict)
    for form, field in ((wire, "snapshotInterval"), (figures, "costs")):
        del form[field]
    sim.state = JobState.from_wire(wire)
    assert told(sim) == {0.0}, "workers make none until they are told"
    wait_for(sim, lambda: sim.state.snapshot_interval is not None, 10.0)
    assert told(sim) == {SNAPSHOT_FIRST_S}


def test_workers_of_an_older_version_do_not_say_what_one_costs() -> None:
    sim = started("", snapshots="auto")
    snapped(sim, stall_s=0.0, seconds=0.0)
    assert sim.state.snapshot_figures.newest is not None
    assert sim.state.snapshot_figures.costs == ()
    assert (interval(sim).interval_s, interval(sim).cost_s) == (SNAPSHOT_FIRST_S, None)
    newest = worker(sim, 0).snapshots
    assert newest is not None
    wire = to_wire(newest)
    for field in ("seconds", "stallS"):
        del wire[field]
    assert from_wire(type(newest), wire) == newest


def test_a_worker_of_an_older_controller_is_told_nothing() -> None:
    sim = started("", snapshots="10m")
    (order, *_) = next(iter(desired_workers(sim.state).values()))
    assert order.snapshot_interval_s == 600.0
    wire = to_wire(order)
    del wire["snapshotIntervalS"]
    assert from_wire(WorkerDesired, wire) == replace(order, snapshot_interval_s=0.0)


def test_a_time_in_the_job_file_is_what_workers_are_told() -> None:
    sim = started("", snapshots="20s")
    snapped(sim)
    fails(sim)
    assert told(sim) == {20.0}
    (event,) = chosen(sim)
    assert event.message == "a snapshot every 20s: spec.checkpoint.snapshots.interval says so"
    assert sim.state.snapshot_figures.newest is not None, "they are shown as those by steps are"
    assert sim.state.snapshot_figures.costs == ()


def test_a_job_without_snapshots_is_told_nothing() -> None:
    sim = started("")
    trained(sim, 5)
    assert (told(sim), chosen(sim), sim.state.snapshot_interval) == ({0.0}, [], None)


def test_a_failure_of_all_goes_back_to_one_that_was_made_by_time() -> None:
    sim = started("", snapshots="auto")
    snapped(sim)
    ref, g = sim.state.snapshot_figures.newest, record(sim).generation
    for slot in range(4):
        worker(sim, slot).end(-9, sim.now_s)
    wait_for(sim, lambda: record(sim).generation > g)
    assert record(sim).snapshot == ref


@pytest.mark.parametrize(
    ("text", "often"),
    [("auto", "as often as pays, by what one costs and how often the job fails"), ("30s", "every 30s")],
)
def test_a_dry_run_says_how_often(text: str, often: str) -> None:
    job = sim_job(nodes=NodesSpec(min=1, max=1), per_node=1, snapshots=text)
    state, _ = new_job("u", job, workdir="w", now_s=1.0)
    assert any(line.endswith(f", a snapshot in the memory of the nodes {often}") for line in plan_sentences(state))


def test_people_are_shown_why() -> None:
    sim = started("", snapshots="auto")
    measured(sim)
    status = job_message(sim.state, sim.view(), now_s=sim.now_s, revision=1).status
    assert (status.snapshot_interval.interval_s, status.snapshot_interval.reason) == (
        interval(sim).interval_s,
        interval(sim).reason,
    )
    assert status.snapshot_interval.cost_s == interval(sim).cost_s
    assert not status.HasField("checkpoint_interval")
    (line,) = [line for line in explain(sim.state, sim.now_s) if "a snapshot is made every" in line]
    assert line == f"a snapshot is made every {format_duration(interval(sim).interval_s)}: {interval(sim).reason}"
