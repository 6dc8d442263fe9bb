"""A damaged checkpoint: one decision for all ranks, the newest older one, never the same one again.

Without it ranks could go on from different steps, or try the damaged one for ever.
"""

from __future__ import annotations

import pytest

from trainctl.controller.domain.job_state import JobState
from trainctl.controller.domain.reconcile import observe_checkpoint, request_rollback
from trainctl.controller.domain.states import TERMINAL, JobPhase
from trainctl.controller.domain.submit import Resume, new_job
from trainctl.core.records.generation import Rung
from trainctl.core.records.spec import NodesSpec
from trainctl.core.records.worker import CheckpointReport, WorkerError
from unit.domain.domain_sim import Simulation, sim_job
from unit.domain.one_job import limit_user, record, wait_for, worker
from unit.domain.refusals import ALL, condition, lose_all, resumed, saved
from unit.domain.sample_reports import ref_of


@pytest.mark.parametrize("finders", [ALL, frozenset({2}), frozenset({0, 3})])
def test_all_ranks_go_back_to_the_next_older_one_and_no_budget_is_charged(finders: frozenset[int]) -> None:
    sim = saved(3)
    _, older, newest = sim.state.checkpoints
    sim.cluster.damaged = {newest.uri: finders}
    lose_all(sim)
    wait_for(sim, lambda: record(sim).checkpoint == older)
    assert (record(sim).rung, record(sim).target_step) == (Rung.CHECKPOINT, older.step)
    assert sim.state.recoveries[-1].lost_steps > newest.step - older.step
    wait_for(sim, lambda: worker(sim, 0).applied > older.step)
    tried = [one.checkpoint for one in sim.check.records if one.rung is Rung.CHECKPOINT]
    assert tried == [newest, older]
    assert not sim.state.restarts.process_s
    assert sim.state.restarts.total == 0
    assert [refused.ref for refused in sim.state.refused] == [newest]
    (event,) = [e for e in sim.events if e.type == "checkpoint.rejected"]
    assert event.reason == "Damaged"
    for part in (newest.uri, "param of w", "w0.safetensors", f"of step {older.step}", "costs 7 steps more"):
        assert part in event.message
    assert event.fields["attempt"] == newest.attempt
    assert condition(sim)[:2] == ("True", "Damaged")
    assert sim.state.checkpoint_figures.refused == 1, "by however many ranks it was found"


def test_the_next_save_ends_the_condition_and_the_old_report_changes_nothing() -> None:
    sim = saved(2)
    older, newest = sim.state.checkpoints
    sim.cluster.damaged = {newest.uri: ALL}
    lose_all(sim)
    wait_for(sim, lambda: bool(sim.state.refused))
    again = CheckpointReport(
        job_uid="u1", island="island-0", generation=1, step=newest.step, lineage=newest.lineage, ref=newest
    )
    told = observe_checkpoint(sim.state, again, sim.now_s)
    assert told.state.checkpoints == (older,), "before the next generation is committed, its lineage is still the old"
    assert [e.reason for e in told.events] == ["Damaged"]
    del sim._checkpoints
    wait_for(sim, lambda: len(sim.state.checkpoints) == 2)
    assert condition(sim)[:2] == ("False", "Saved")
    assert newest not in sim.state.checkpoints


def test_where_the_older_one_is_damaged_too_it_goes_on_until_none_is_left_and_names_all() -> None:
    sim = saved(3)
    refs = sim.state.checkpoints
    sim.cluster.damaged = {ref.uri: ALL for ref in refs}
    lose_all(sim)
    sim.until(JobPhase.FAILED)
    failure = sim.state.failure
    assert failure is not None
    assert failure.code == "CHECKPOINT_DAMAGED"
    assert "no checkpoint is left" in failure.message
    assert all(f"step {ref.step}, attempt {ref.attempt}: {ref.uri}/data" in failure.message for ref in refs)
    assert failure.hint
    tried = [one.checkpoint for one in sim.check.records if one.rung is Rung.CHECKPOINT]
    assert tried == list(reversed(refs))


def test_another_worker_that_dies_meanwhile_changes_nothing_about_the_decision() -> None:
    sim = saved(2)
    older, newest = sim.state.checkpoints
    limit_user(sim, 0, process=5)
    sim.cluster.damaged = {newest.uri: frozenset({1})}
    lose_all(sim)
    wait_for(sim, lambda: bool(sim.state.refused))
    worker(sim, 2).end(-9, sim.now_s)
    sim.epoch += 1  # and another controller leads from here on
    wait_for(sim, lambda: record(sim).checkpoint == older and sim.state.sole_island.entered)
    assert [refused.ref for refused in sim.state.refused] == [newest]


def test_survivors_of_a_roll_back_to_a_damaged_one_go_further_back() -> None:
    sim = saved(3)
    oldest, older, _ = sim.state.checkpoints
    sim.cluster.damaged = {older.uri: frozenset({3})}
    survivor = worker(sim, 0).incarnation
    sim.persist(request_rollback(sim.state, sim.now_s, target=older))
    wait_for(sim, lambda: record(sim).checkpoint == oldest and sim.state.sole_island.entered)
    assert worker(sim, 0).incarnation == survivor
    assert sim.state.phase is JobPhase.RUNNING


def test_a_job_that_begins_with_the_newest_begins_with_an_older_one_instead() -> None:
    older = ref_of(10, uri="mem://old/10", lineage=4)
    sim, _ = resumed((older,))
    sim.until(JobPhase.RUNNING)
    assert (record(sim).checkpoint, record(sim).target_step) == (older, 10)
    assert (sim.state.resume, sim.state.resume_older) == (older, ())
    sim.until(JobPhase.SUCCEEDED)


def test_a_job_that_was_told_which_one_to_begin_with_begins_with_no_other() -> None:
    sim, ref = resumed(())
    sim.until(JobPhase.FAILED)
    assert sim.state.failure is not None
    assert ref.uri in sim.state.failure.message


def test_what_was_passed_over_at_the_submission_is_said() -> None:
    job = sim_job(nodes=NodesSpec(min=1, max=1), per_node=2)
    ref = ref_of(20, uri="mem://old/20", lineage=4, attempt="b")
    resume = Resume(ref=ref, passed_over=("a newer checkpoint is passed over: manifest.json is torn",))
    _, events = new_job("u1", job, workdir="w", now_s=0.0, resume=resume)
    assert [(e.type, e.reason) for e in events[1:]] == [("checkpoint.rejected", "Damaged")]


def fail(sim: Simulation, slots: range, code: str, checkpoint: str = "") -> None:
    for slot in slots:
        error = WorkerError(type="E", message="the endpoint does not answer", code=code, checkpoint=checkpoint)
        worker(sim, slot).error = error
        worker(sim, slot).end(1, sim.now_s)


def test_a_storage_that_is_away_is_tried_again_and_refuses_no_checkpoint() -> None:
    sim = saved(2)
    limit_user(sim, 0, process=1)
    known = sim.state.checkpoints
    lose_all(sim)
    wait_for(sim, lambda: record(sim).rung is Rung.CHECKPOINT)
    fail(sim, range(4), "STORAGE_AWAY")
    generation = record(sim).generation
    wait_for(sim, lambda: record(sim).generation > generation)
    assert record(sim).checkpoint == known[-1]
    assert len(sim.state.restarts.process_s) == 1, "it is one incident, on however many ranks"
    assert sim.state.checkpoints == known
    fail(sim, range(4), "STORAGE_AWAY")
    sim.until(JobPhase.FAILED)
    assert sim.state.failure is not None
    assert sim.state.failure.code == "RESTART_BUDGET"
    assert "the endpoint does not answer" in sim.state.failure.message
    assert sim.state.checkpoints == known


@pytest.mark.parametrize("code", ["STORAGE_REFUSED", "CHECKPOINT_UNFIT"])
def test_what_would_be_said_again_fails_the_job_and_no_checkpoint_is_given_up(code: str) -> None:
    sim = saved(2)
    known = sim.state.checkpoints
    lose_all(sim)
    wait_for(sim, lambda: record(sim).rung is Rung.CHECKPOINT)
    fail(sim, range(1), code)
    sim.until(JobPhase.FAILED)
    assert sim.state.failure is not None
    assert (sim.state.failure.code, sim.state.checkpoints) == (code, known)
    assert sim.state.failure.hint


def test_damage_of_a_checkpoint_that_is_none_of_the_jobs_gives_up_none() -> None:
    sim = saved(2)
    known = sim.state.checkpoints
    fail(sim, range(1), "CHECKPOINT_DAMAGED", checkpoint="mem://somebody/elses")
    sim.until(JobPhase.FAILED)
    assert sim.state.checkpoints == known


def test_what_an_older_controller_wrote_is_read() -> None:
    sim = saved(1)
    wire = sim.state.to_wire()
    del wire["refused"], wire["resumeOlder"]
    assert JobState.from_wire(wire) == sim.state


def run_with_damage(seed: int) -> Simulation:
    """Agents and workers die at any moment; now and then the newest checkpoint is damaged for some ranks."""
    job = sim_job(nodes=NodesSpec(min=1, max=1), per_node=4, steps=150)
    sim = Simulation(seed, job, agents=1, slots=4, fault_rate=0.04, faults_until_s=120.0)
    end_s = sim.now_s + 600.0
    while sim.state.phase not in TERMINAL:
        assert sim.now_s < end_s, f"seed {seed}: {sim.state.phase}: {sim.state.message}"
        sim.tick()
        refs = sim.state.checkpoints
        if len(refs) > 1 and refs[-2].uri not in sim.cluster.damaged and sim.rng.random() < 0.05:
            finders = sim.rng.sample(range(4), sim.rng.randint(1, 4))
            sim.cluster.damaged.setdefault(refs[-1].uri, frozenset(finders))
    return sim


@pytest.mark.parametrize("block", range(3))
def test_damage_at_any_moment_under_faults_keeps_every_invariant_and_the_job_finishes(block: int) -> None:
    refused = 0
    for seed in range(block * 8, block * 8 + 8):
        sim = run_with_damage(seed)
        assert sim.state.phase is JobPhase.SUCCEEDED, f"seed {seed}: {sim.state.message}"
        gone = [one.ref.uri for one in sim.state.refused]
        assert len(set(gone)) == len(gone), "each is refused once"
        assert not set(gone) & {ref.uri for ref in sim.state.checkpoints}
        told = [event for event in sim.events if event.type == "checkpoint.rejected" and "instead_step" in event.fields]
        assert len(told) == len(gone)
        tried = [one.checkpoint for one in sim.check.records if one.checkpoint is not None]
        assert all(tried.count(ref.ref) >= 1 for ref in sim.state.refused), "what was refused had been tried"
        refused += len(gone)
    assert refused > 0, "no checkpoint was ever damaged when it was needed"
