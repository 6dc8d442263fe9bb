"""What the figures of steps do to a job: progress, speed, skipped steps, the end of a recovery; what is said without.

Without it a job that no longer moves looks like one that trains, and a recovery never ends.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from trainctl.controller.domain.explain import explain
from trainctl.controller.domain.job_records import TrainProgress
from trainctl.controller.domain.job_state import JobState
from trainctl.controller.domain.metrics import eta_s, stalled_s, tokens_per_s
from trainctl.controller.domain.reconcile import observe_figures, observe_recovery
from trainctl.controller.domain.states import JobPhase
from trainctl.core.records.spec import NodesSpec
from trainctl.core.records.step import StepFigures
from trainctl.core.records.worker import RecoveryReport
from unit.domain.domain_sim import Simulation, sim_job
from unit.domain.domain_sim_nodes import figures_of
from unit.domain.one_job import record, start, trained, wait_for, worker


@pytest.mark.parametrize(("every", "phase"), [(1, JobPhase.FAILED), (5, JobPhase.SUCCEEDED)])
def test_skipped_steps_are_counted_and_a_job_that_skipped_all_of_them_has_failed(every: int, phase: JobPhase) -> None:
    sim = Simulation(7, sim_job(nodes=NodesSpec(min=2, max=2), per_node=2, steps=20), agents=2, slots=2, fault_rate=0.0)
    take_in = sim._checkpoints

    def skip() -> None:
        found = sim.cluster.figures
        found[:] = [
            replace(f, skipped=f.step % every == 0, loss=math.nan if f.step % every == 0 else 2.0) for f in found
        ]
        take_in()

    sim._checkpoints = skip  # type: ignore[method-assign]
    sim.until(phase)
    assert sim.state.progress.skipped == 20 // every
    if phase is JobPhase.FAILED:
        assert sim.state.failure is not None
        assert sim.state.failure.code == "EVERY_STEP_SKIPPED"
        assert "trainctl events" in sim.state.failure.hint
        assert sim.state.progress.loss is None
    else:
        assert sim.state.message.endswith("finished 20 steps (4 of them skipped), last loss 2.0000")


def figures(of: JobState, step: int, wall_s: float) -> StepFigures:
    found = of.sole_island.record
    assert found is not None
    return figures_of(found.generation, found.lineage, step, wall_s)


def test_a_job_that_commits_no_step_any_more_is_shown_as_slow_and_then_explained() -> None:
    sim = start()
    wait_for(sim, lambda: len(sim.state.progress.recent_step_s) > 3)
    state, seen_s = sim.state, sim.state.progress.updated_s
    assert tokens_per_s(state, seen_s) == pytest.approx(200)  # 100 tokens in 0.5 s
    assert eta_s(state, seen_s) == (400 - state.progress.step) * 0.5
    assert not any("no step" in line for line in explain(state, seen_s + 9))
    late_s = seen_s + 90
    assert 0 < tokens_per_s(state, late_s) < 10
    assert eta_s(state, late_s) == 0
    assert any("no step was committed for 1m30s" in line for line in explain(state, late_s))


def test_nothing_is_promised_of_a_pace_that_nobody_knows() -> None:
    sim = start()
    wait_for(sim, lambda: len(sim.state.progress.recent_step_s) > 3)
    state, seen_s = sim.state, sim.state.progress.updated_s
    assert tokens_per_s(state, seen_s) > 0
    resting = replace(state, phase=JobPhase.PAUSED)
    unknown = replace(state, progress=replace(state.progress, recent_step_s=()))
    no_time = replace(state, progress=replace(state.progress, recent_step_s=(0.0, 0.0)))
    for other in (resting, unknown, no_time):
        assert tokens_per_s(other, seen_s) == 0.0
    assert eta_s(resting, seen_s) == eta_s(unknown, seen_s) == 0.0
    for step in (state.steps, state.steps + 1):
        over = replace(state, progress=replace(state.progress, step=step))
        assert eta_s(over, seen_s) == 0.0
    last = replace(state, progress=replace(state.progress, step=state.steps - 1))
    assert eta_s(last, seen_s) == 0.5


def test_a_job_that_never_commits_a_step_is_explained() -> None:
    sim = start()
    never = replace(sim.state, progress=TrainProgress())
    assert stalled_s(never, never.phase_since_s + 59) == 0
    assert stalled_s(never, never.phase_since_s + 61) == pytest.approx(61)


def test_figures_are_telemetry_but_the_first_new_step_ends_the_recovery() -> None:
    sim = start()
    trained(sim, 4)
    step, tokens = sim.state.progress.step, sim.state.progress.tokens
    two = [figures(sim.state, step + 2, sim.now_s), figures(sim.state, step + 1, sim.now_s)]
    result = observe_figures(sim.state, two, sim.now_s)
    assert not result.durable
    assert (result.state.progress.step, result.state.progress.tokens) == (step + 2, tokens + 200)
    assert observe_figures(result.state, two, sim.now_s).state == result.state
    worker(sim, 1).end(-9, sim.now_s)
    sim.cluster.on_figures = False
    wait_for(sim, lambda: record(sim).generation == 2)
    committed_s = sim.state.sole_island.committed_s
    after = observe_figures(
        sim.state, [figures(sim.state, record(sim).target_step + 1, committed_s + 0.25)], committed_s + 1
    )
    assert after.durable
    assert [e.type for e in after.events] == ["recovery.finished"]
    last = after.state.recoveries[-1]
    assert last.phases_s["first_step"] == pytest.approx(0.25)
    report = RecoveryReport(
        job_uid="u1", island="island-0", generation=2, global_rank=1, slot=1, rebuild_s=0.1, restore_s=0.05,
        received_bytes={"rank 0": 10, "rank 2": 12},
    )  # fmt: skip
    told = observe_recovery(after.state, report, sim.now_s).state.recoveries[-1]
    assert told.copied_bytes == {"rank 0 -> rank 1": 10, "rank 2 -> rank 1": 12}
    assert told.phases_s["rendezvous"] == pytest.approx(0.1)
    assert told.phases_s["first_step"] == pytest.approx(0.1)
    assert told.phases_s["total"] == last.phases_s["total"]
