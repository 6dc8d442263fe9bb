"""Pause, resume, restart, roll back, scale, drain: one wish at a time, with what a person would expect afterwards.

Without it a pause or a resize could be forgotten, or two wishes undo each other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from trainctl.controller.domain.desired import desired_workers
from trainctl.controller.domain.explain import explain
from trainctl.controller.domain.goodput import Bucket, totals_s
from trainctl.controller.domain.job_state import JobState
from trainctl.controller.domain.reconcile import (
    IllegalTransitionError,
    Reconciliation,
    lost_steps,
    observe_checkpoint,
    request_cancel,
    request_delete,
    request_pause,
    request_restart,
    request_resume,
    request_rollback,
    request_scale,
    rollback_target,
)
from trainctl.controller.domain.reconcile.wishes import StepsWouldBeLostError
from trainctl.controller.domain.states import STOPPING, TERMINAL, JobPhase, SlotState
from trainctl.core.errors import PreconditionError, SpecError
from trainctl.core.records.generation import Rung
from trainctl.core.records.spec import NodesSpec
from trainctl.core.records.worker import CheckpointReport, Instruction
from unit.domain.domain_sim import Simulation, sim_job
from unit.domain.domain_sim_nodes import SimWorker
from unit.domain.one_job import wait_for
from unit.domain.sample_reports import ref_of
from unit.domain.wishing import ask, start


def members(sim: Simulation) -> list[SimWorker]:
    record = sim.state.sole_island.record
    assert record is not None
    return [w for m in record.members if (w := sim.cluster.find(m.incarnation)) is not None]


def voted_twice(sim: Simulation) -> list[int]:
    """Steps that were voted on more than once in one lineage: what was repeated although nobody failed."""
    steps = [(lineage, step) for lineage, step, _ in sim.cluster.votes]
    return [step for lineage, step in set(steps) if steps.count((lineage, step)) > 1]


def test_a_pause_saves_the_newest_step_gives_the_slots_back_and_resumes_there() -> None:
    sim = start()
    ask(sim, request_pause(sim.state, sim.now_s))
    sim.until(JobPhase.PAUSING)
    orders = [d for agent in desired_workers(sim.state).values() for d in agent]
    assert all(d.instruction is Instruction.RUN and d.hold and d.checkpoint_on_stop for d in orders)
    sim.until(JobPhase.PAUSED)
    newest = sim.state.checkpoints[-1]
    assert newest.step == max(step for _, step, _ in sim.cluster.votes)
    assert not any(slot.bound for slot in sim.state.sole_island.slots)
    assert not desired_workers(sim.state)
    asleep_s = sim.now_s
    wait_for(sim, lambda: sim.now_s > asleep_s + 100)
    assert sim.state.phase.value == "PAUSED"
    ask(sim, request_resume(sim.state, sim.now_s))
    assert sim.state.phase.value == "QUEUED"
    sim.until(JobPhase.RUNNING)
    record = sim.state.sole_island.record
    assert record is not None
    assert (record.target_step, record.checkpoint) == (newest.step, newest)
    assert totals_s(sim.state.goodput, sim.now_s)[Bucket.PAUSED] > 99
    assert sim.state.goodput.lost_us == 0
    assert sim.run().phase is JobPhase.SUCCEEDED
    assert not voted_twice(sim)


def test_a_job_that_waits_for_capacity_is_paused_at_once() -> None:
    sim = Simulation(1, sim_job(nodes=NodesSpec(min=2, max=2), per_node=2), agents=1, slots=2, fault_rate=0.0)
    wait_for(sim, lambda: sim.state.reason == "WaitingForCapacity")
    ask(sim, request_pause(sim.state, sim.now_s))
    sim.until(JobPhase.PAUSED)
    assert "nothing was trained yet" in sim.state.message
    ask(sim, request_cancel(sim.state, sim.now_s))
    sim.until(JobPhase.CANCELLED)


def test_a_pause_that_cannot_save_is_called_off_and_the_job_goes_on_where_it_stood() -> None:
    sim = start()
    sim.cluster.disk_full = True
    ask(sim, request_pause(sim.state, sim.now_s))
    wait_for(sim, lambda: any(e.type == "job.halt_given_up" for e in sim.events))
    sim.cluster.disk_full = False
    assert "could not be saved" in next(e.message for e in sim.events if e.type == "job.halt_given_up")
    sim.until(JobPhase.RUNNING)
    assert sim.state.halt is None
    assert sim.state.sole_island.record is not None
    assert sim.state.sole_island.record.lineage == 1
    assert sim.run().phase is JobPhase.SUCCEEDED
    assert not voted_twice(sim)


@pytest.mark.parametrize("when", ["held", "stopping"])
def test_a_pause_can_be_taken_back(when: str) -> None:
    sim = start()
    lives = {w.incarnation for w in members(sim)}
    ask(sim, request_pause(sim.state, sim.now_s))
    sim.until(JobPhase.PAUSING)
    if when == "stopping":
        wait_for(sim, lambda: sim.state.halt is not None and sim.state.halt.stopping)
    ask(sim, request_resume(sim.state, sim.now_s))
    sim.until(JobPhase.RUNNING)
    assert (lives == {w.incarnation for w in members(sim)}) == (when == "held")
    assert sim.run().phase is JobPhase.SUCCEEDED
    assert not voted_twice(sim)


def test_a_worker_lost_while_it_pauses_is_replaced_first_and_no_step_is_lost() -> None:
    sim = start()
    ask(sim, request_pause(sim.state, sim.now_s))
    sim.until(JobPhase.PAUSING)
    members(sim)[1].end(-9, sim.now_s)
    sim.until(JobPhase.PAUSED)
    assert sim.state.checkpoints[-1].step == max(step for _, step, _ in sim.cluster.votes)


def test_time_in_paused_does_not_count_for_the_deadline() -> None:
    sim = start(steps=2000)
    job = sim.state.spec
    scheduling = replace(job.spec.scheduling, active_deadline="60s")
    sim.state = replace(sim.state, spec=replace(job, spec=replace(job.spec, scheduling=scheduling)))
    ask(sim, request_pause(sim.state, sim.now_s))
    sim.until(JobPhase.PAUSED)
    began_s = sim.now_s
    wait_for(sim, lambda: sim.now_s > began_s + 120)
    ask(sim, request_resume(sim.state, sim.now_s))
    sim.until(JobPhase.RUNNING)
    sim.until(JobPhase.FAILED)
    assert sim.state.failure is not None
    assert "time in PAUSED not counted" in sim.state.failure.message
    assert sim.now_s - sim.state.submitted_s >= 180


def test_a_restart_puts_new_lives_into_the_same_places() -> None:
    sim = start()
    before = [(w.incarnation, w.desired.slot) for w in members(sim)]
    places = [(s.index, s.node) for s in sim.state.sole_island.slots]
    asked = request_restart(sim.state, sim.now_s, allow_loss=False)
    assert asked.events[0].message.endswith("every worker gets a new process; a checkpoint is saved first")
    ask(sim, asked)
    assert request_restart(sim.state, sim.now_s, allow_loss=False).state is sim.state
    sim.until(JobPhase.RESTARTING)
    wait_for(sim, lambda: sim.state.phase is JobPhase.RUNNING)
    after = [(w.incarnation, w.desired.slot) for w in members(sim)]
    assert [slot for _, slot in after] == [slot for _, slot in before]
    assert not {life for life, _ in after} & {life for life, _ in before}
    assert places == [(s.index, s.node) for s in sim.state.sole_island.slots]
    assert sim.state.restarts.total == 0, "no budget is charged"
    assert sim.run().phase is JobPhase.SUCCEEDED
    assert not voted_twice(sim)


def test_a_restart_that_would_lose_steps_says_how_many_and_wants_to_be_told() -> None:
    sim = start()
    members(sim)[0].end(-9, sim.now_s)
    sim.until(JobPhase.RECOVERING)
    with pytest.raises(StepsWouldBeLostError, match=r"from the checkpoint of step \d+ and loses \d+ steps") as error:
        request_restart(sim.state, sim.now_s, allow_loss=False)
    assert "-y" in error.value.hint
    newest = sim.state.checkpoints[-1]
    asked = request_restart(sim.state, sim.now_s, allow_loss=True)
    assert f"a new process; it goes on from the checkpoint of step {newest.step}" in asked.events[0].message
    ask(sim, asked)
    sim.until(JobPhase.RUNNING)
    assert sim.state.progress.lineage == 2, "as it is shown, too"
    record = sim.state.sole_island.record
    assert record is not None
    assert record.target_step >= newest.step
    assert record.lineage == 2


@pytest.mark.parametrize("phase", sorted(STOPPING | TERMINAL))
def test_of_a_job_that_ends_nothing_can_be_asked_any_more(phase: JobPhase) -> None:
    ending = replace(start().state, phase=phase)
    over = "it has ended; submit it again with spec.checkpoint.resumeFrom to go on from it"
    hint = over if phase in TERMINAL else "its workers are on their way out; submit it again when it has ended"
    wishes: list[Callable[[], Reconciliation]] = [
        lambda: request_restart(ending, 0.0, allow_loss=True),
        lambda: request_scale(ending, 0.0, least=1, most=2),
    ]
    for wish in wishes:
        with pytest.raises(IllegalTransitionError, match=f"is {phase}: it cannot be") as refused:
            wish()
        assert refused.value.hint == hint


def test_a_rollback_keeps_the_processes_and_begins_a_lineage() -> None:
    sim = start()
    wait_for(sim, lambda: len(sim.state.checkpoints) == 3)
    lives = {w.incarnation for w in members(sim)}
    target = rollback_target(sim.state, None)
    assert target == sim.state.checkpoints[-2]
    given_up = sim.state.checkpoints[-1]
    assert lost_steps(sim.state, target) >= 7
    ask(sim, request_rollback(sim.state, sim.now_s, target=target))
    assert sim.state.checkpoints[-1] == target
    late = CheckpointReport(
        job_uid="u1", island="island-0", generation=1, step=given_up.step + 7, lineage=1,
        ref=replace(given_up, uri="mem://late", step=given_up.step + 7),
    )  # fmt: skip
    assert observe_checkpoint(sim.state, late, sim.now_s).state.checkpoints == sim.state.checkpoints
    wait_for(sim, lambda: sim.state.rollback is None)
    record = sim.state.sole_island.record
    assert record is not None
    assert (record.rung, record.lineage, record.target_step) == (Rung.CHECKPOINT, 2, target.step)
    assert {m.incarnation for m in record.members} == lives
    assert sim.state.progress.step == target.step
    assert sim.state.goodput.lost_us > 0
    assert given_up.uri in next(e.message for e in sim.events if e.type == "job.rollback_requested")
    assert sim.run().phase is JobPhase.SUCCEEDED


def test_a_paused_job_goes_back_when_it_is_resumed() -> None:
    sim = start()
    wait_for(sim, lambda: len(sim.state.checkpoints) >= 2)
    ask(sim, request_pause(sim.state, sim.now_s))
    sim.until(JobPhase.PAUSED)
    target = sim.state.checkpoints[0]
    ask(sim, request_rollback(sim.state, sim.now_s, target=target))
    assert sim.state.phase is JobPhase.PAUSED
    ask(sim, request_resume(sim.state, sim.now_s))
    sim.until(JobPhase.RUNNING)
    record = sim.state.sole_island.record
    assert record is not None
    assert record.target_step == target.step
    assert sim.run().phase is JobPhase.SUCCEEDED


def test_what_a_rollback_cannot_mean_is_refused_with_what_there_is() -> None:
    sim = start()
    wait_for(sim, lambda: len(sim.state.checkpoints) == 1)
    with pytest.raises(PreconditionError, match=r"no checkpoint before its newest \(committed: 7\)"):
        rollback_target(sim.state, None)
    with pytest.raises(PreconditionError, match="no committed checkpoint of step 5; there are those of: 7"):
        rollback_target(sim.state, 5)
    begun = replace(sim.state, resume=ref_of(3))
    assert rollback_target(begun, None).step == 3
    sim.cancel()
    sim.until(JobPhase.CANCELLED)
    with pytest.raises(IllegalTransitionError) as error:
        rollback_target(sim.state, 7)
    assert "resumeFrom: mem://1/7" in error.value.hint


def test_fewer_nodes_leave_at_a_boundary_and_come_back_without_a_step_repeated() -> None:
    sim = start()
    before = {w.incarnation for w in members(sim)}
    ask(sim, request_scale(sim.state, sim.now_s, most=1))
    assert "from 2 nodes (min 1, max 2) to 1 node (min 1, max 1)" in sim.events[-1].message
    wait_for(sim, lambda: len(members(sim)) == 2 and sim.state.phase is JobPhase.RUNNING)
    kept = {w.incarnation for w in members(sim)}
    assert kept < before
    wait_for(sim, lambda: sum(s.bound for s in sim.state.sole_island.slots) == 2)
    assert {s.state for s in sim.state.sole_island.slots if not s.bound} == {SlotState.EMPTY}
    ask(sim, request_scale(sim.state, sim.now_s, most=2))
    assert sim.state.spec.spec.nodes.target == 2
    wait_for(sim, lambda: len(members(sim)) == 4 and sim.state.phase is JobPhase.RUNNING)
    assert kept < {w.incarnation for w in members(sim)}
    assert sim.run().phase is JobPhase.SUCCEEDED
    assert not voted_twice(sim)
    record = sim.state.sole_island.record
    assert record is not None
    assert record.lineage == 1


def test_bounds_that_do_not_fit_are_refused_as_a_whole() -> None:
    sim = start()
    with pytest.raises(SpecError) as error:
        request_scale(sim.state, sim.now_s, least=5, most=20)
    paths = {p.path for p in error.value.problems}
    assert paths == {"spec.train.batch.microBatches"}
    with pytest.raises(SpecError, match=r"spec\.nodes\.min: 3 is greater than spec\.nodes\.max \(2\)"):
        request_scale(sim.state, sim.now_s, least=3)
    with pytest.raises(SpecError, match=r"spec\.nodes\.target: expected 1 to 2"):
        request_scale(sim.state, sim.now_s, target=4)
    with pytest.raises(SpecError) as error:
        request_scale(sim.state, sim.now_s, least=5, most=2)
    assert [p.path for p in error.value.problems] == ["spec.nodes.min"], "the target that nobody set is no problem"
    assert request_scale(sim.state, sim.now_s, least=1).state is sim.state


@pytest.mark.parametrize(("nodes", "agents"), [(1, 2), (2, 3)])
def test_a_drained_node_is_left_for_another_without_a_step_lost(nodes: int, agents: int) -> None:
    sim = start(nodes=nodes, agents=agents, least=nodes)
    leaving = sim.state.sole_island.slots[0].node
    sim.draining = {leaving}
    wait_for(sim, lambda: all(s.node != leaving for s in sim.state.sole_island.slots))
    wait_for(sim, lambda: sim.state.phase is JobPhase.RUNNING)
    assert len(members(sim)) == 2 * nodes
    assert sim.run().phase is JobPhase.SUCCEEDED
    assert not voted_twice(sim)
    assert sim.state.goodput.lost_us == 0
    assert sim.state.restarts.total == 0


def test_a_drained_node_without_another_shrinks_the_job_or_waits() -> None:
    sim = start(least=1, steps=2000)
    sim.draining = {"node-0"}
    wait_for(sim, lambda: not any(s.node == "node-0" for s in sim.state.sole_island.slots))
    assert len(members(sim)) == 2
    sim.draining = {"node-0", "node-1"}
    began_s = sim.now_s
    wait_for(sim, lambda: sim.now_s > began_s + 30)
    assert sim.state.phase is JobPhase.RUNNING, "it cannot go below its minimum"
    sim.draining = {"node-1"}
    wait_for(sim, lambda: {s.node for s in sim.state.sole_island.slots if s.bound} == {"node-0"})
    assert not voted_twice(sim)


def test_a_cordoned_node_gets_nothing_new() -> None:
    job = sim_job(nodes=NodesSpec(min=1, max=1), per_node=2)
    sim = Simulation(3, job, agents=1, slots=2, fault_rate=0.0)
    sim.draining = {"node-0"}
    wait_for(sim, lambda: sim.state.reason == "WaitingForCapacity")
    sim.draining = set()
    sim.until(JobPhase.RUNNING)


ASKS: dict[str, Callable[[JobState, float], Reconciliation]] = {
    "pause": request_pause,
    "resume": request_resume,
    "restart": lambda s, now_s: request_restart(s, now_s, allow_loss=True),
    "scale": lambda s, now_s: request_scale(s, now_s, most=3),
}


@pytest.mark.parametrize("ask_for", sorted(ASKS))
def test_an_ended_job_says_what_to_do_instead(ask_for: str) -> None:
    sim = start(steps=12)
    sim.until(JobPhase.SUCCEEDED)
    with pytest.raises(IllegalTransitionError, match="is SUCCEEDED") as error:
        ASKS[ask_for](sim.state, sim.now_s)
    assert error.value.hint


def test_deletion_is_for_ended_jobs_or_ends_them() -> None:
    sim = start()
    with pytest.raises(IllegalTransitionError) as error:
        request_delete(sim.state, sim.now_s, keep_checkpoints=False, force=False)
    assert "--force" in error.value.hint
    ask(sim, request_delete(sim.state, sim.now_s, keep_checkpoints=True, force=True))
    sim.until(JobPhase.CANCELLED)
    assert sim.state.deletion is not None
    assert sim.state.deletion.keep_checkpoints


def test_what_was_asked_for_is_explained_until_it_is_done() -> None:
    sim = start()
    wait_for(sim, lambda: len(sim.state.checkpoints) >= 2)
    asked = request_rollback(sim.state, sim.now_s, target=sim.state.checkpoints[0]).state
    assert any("roll-back to step 7 was requested" in sentence for sentence in explain(asked, sim.now_s))
    ask(sim, request_pause(sim.state, sim.now_s))
    assert any("a pause was requested" in sentence for sentence in explain(sim.state, sim.now_s))
    sim.until(JobPhase.PAUSED)
    told = explain(sim.state, sim.now_s)
    assert "resume it with: trainctl resume sim" in told[0]
    assert not any("was requested" in sentence for sentence in told)
