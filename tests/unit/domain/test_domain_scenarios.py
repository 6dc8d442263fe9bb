"""One failure at a time, each with what a person would expect to see afterwards.

Without it a plain failure could be met with the wrong recovery.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from trainctl.controller.domain.desired import desired_workers
from trainctl.controller.domain.events import (
    GENERATION_COMMITTED,
    GENERATION_PREPARING,
    WORKER_CONDEMNED,
    WORKER_READY,
)
from trainctl.controller.domain.explain import NEXT, explain
from trainctl.controller.domain.goodput import Bucket, totals_s
from trainctl.controller.domain.job_state import JobState
from trainctl.controller.domain.reconcile import reconcile, request_cancel
from trainctl.controller.domain.states import JobPhase, SlotState
from trainctl.controller.domain.submit import Resume, new_job
from trainctl.controller.domain.view import ClusterView, ListedAgents
from trainctl.core.records.generation import Rung
from trainctl.core.records.spec import NodesSpec, TrainJob
from trainctl.core.records.step import Phase
from trainctl.core.records.worker import Instruction
from unit.domain.domain_sim import Simulation, sim_job
from unit.domain.domain_sim_nodes import outcome_of
from unit.domain.one_job import agent_of, generation, record, start, trained, wait_for, worker
from unit.domain.sample_reports import ref_of


def test_a_killed_worker_is_replaced_in_its_rank_from_a_live_peer() -> None:
    sim = start()
    trained(sim, 5)
    before = record(sim)
    worker(sim, 1).end(-9, sim.now_s)
    generation(sim, 2)
    after = record(sim)
    assert after.rung is Rung.PEER
    assert after.lineage == before.lineage
    assert after.target_step >= 5
    assert [m.slot for m in after.members] == [0, 1, 2, 3]
    changed = [a.global_rank for a, b in zip(before.members, after.members, strict=True) if a != b]
    assert changed == [1]
    assert after.members[1].node == before.members[1].node
    wait_for(sim, lambda: sim.state.sole_island.marks is None)
    recovery = sim.state.recoveries[-1]
    parts = {k: v for k, v in recovery.phases_s.items() if k != "total"}
    assert list(parts) == ["detect", "stop", "boot", "decide", "rendezvous", "restore", "first_step"]
    assert sum(parts.values()) == pytest.approx(recovery.phases_s["total"])
    assert recovery.slots == (1,)
    assert "1 new worker copies 640 B from 3 workers that have step" in recovery.reason
    assert "SIGKILL" in recovery.fault
    assert {c.rung for c in recovery.candidates} == {"shrink", "peer", "snapshot", "checkpoint", "start"}


def test_the_time_that_a_frozen_worker_held_everybody_up_is_booked_as_a_hang() -> None:
    sim = start()
    trained(sim, 5)
    since_s = sim.now_s
    sim.freeze(worker(sim, 1))
    generation(sim, 2)
    hung_s = totals_s(sim.state.goodput, sim.now_s)[Bucket.HANG]
    assert 0 < hung_s <= sim.now_s - since_s


def test_a_newcomer_that_does_not_boot_holds_nobody_up_whatever_its_node_is_called() -> None:
    sim = start(steps=100_000)
    trained(sim, 3)
    sim._heal = lambda: None  # type: ignore[method-assign]
    sim.kill_agent(agent_of(sim, 0))
    generation(sim, 2)
    sim._start_agent("frozen-0", 2)
    wait_for(sim, lambda: sim.state.sole_island.slots[0].alive)
    wait_for(sim, lambda: sim.cluster.find(sim.state.sole_island.slots[0].incarnation) is not None)
    worker(sim, 0).boot_at_s = math.inf
    wait_for(sim, lambda: any(event.type == WORKER_CONDEMNED for event in sim.events), limit_s=1000.0)
    assert totals_s(sim.state.goodput, sim.now_s)[Bucket.HANG] == 0.0


def test_a_replacement_is_asked_before_it_boots_and_counted_in_when_it_is_ready() -> None:
    sim = start()
    trained(sim, 3)
    worker(sim, 1).end(-9, sim.now_s)
    before = sim.state.sole_island.slots[1].incarnation
    wait_for(sim, lambda: sim.state.sole_island.slots[1].incarnation != before)
    wait_for(sim, lambda: sim.cluster.find(sim.state.sole_island.slots[1].incarnation) is not None)
    replacement = worker(sim, 1)
    assert (replacement.desired.instruction, replacement.desired.generation) == (Instruction.PREPARE, 2)
    replacement.boot_at_s = sim.now_s
    for _ in range(2):  # it is ready, and has read what it was told
        replacement.act(sim.cluster, sim.now_s)
    known = len(sim.events)
    wait_for(sim, lambda: len(sim.events) > known)
    told = (WORKER_READY, GENERATION_PREPARING, GENERATION_COMMITTED)
    assert [e.type for e in sim.events[known:] if e.type in told] == [WORKER_READY, GENERATION_COMMITTED]


def test_two_at_once_are_one_recovery() -> None:
    sim = start()
    trained(sim, 3)
    for slot in (0, 3):
        worker(sim, slot).end(-9, sim.now_s)
    generation(sim, 2)
    assert record(sim).rung is Rung.PEER
    assert sim.state.recovery_count == 1
    assert set(sim.state.recoveries[-1].slots) == {0, 3}


def test_a_lost_node_without_replacement_shrinks_and_the_old_order_is_back_after_the_grow() -> None:
    sim = start()
    trained(sim, 3)
    before = record(sim)
    fault_s = sim.now_s
    sim._heal = lambda: None  # type: ignore[method-assign]
    sim.kill_agent(agent_of(sim, 0))
    generation(sim, 2)
    shrunk = record(sim)
    assert shrunk.rung is Rung.SHRINK
    assert [(m.global_rank, m.slot) for m in shrunk.members] == [(0, 2), (1, 3)]
    assert sim.now_s - fault_s >= sim.timeouts.replacement_wait_s
    assert shrunk.holders == (0, 1)
    assert any(c.type == "Degraded" and c.status == "True" for c in sim.state.conditions)
    survivors = {m.incarnation for m in shrunk.members}
    sim._start_agent("node-0", 2)
    wait_for(sim, lambda: record(sim).world_size == 4)
    grown = record(sim)
    assert grown.rung is Rung.GROW
    assert [m.slot for m in grown.members] == [m.slot for m in before.members]
    assert survivors < {m.incarnation for m in grown.members}
    wait_for(sim, lambda: sim.state.phase is JobPhase.RUNNING)
    assert any(c.type == "Degraded" and c.status == "False" for c in sim.state.conditions)
    assert [recovery.planned for recovery in sim.state.recoveries] == [False, True]
    assert sim.state.recovery_count == 1
    assert "recoveries so far: 1; the last planned change" in "\n".join(explain(sim.state, sim.now_s))


def test_only_time_that_half_of_a_job_trains_is_booked_as_half_lost() -> None:
    sim = start()
    trained(sim, 3)
    assert totals_s(sim.state.goodput, sim.now_s)["degraded_loss"] == 0
    sim._heal = lambda: None  # type: ignore[method-assign]
    sim.kill_agent(agent_of(sim, 0))
    generation(sim, 2)
    before = totals_s(sim.state.goodput, sim.now_s)
    assert before["degraded_loss"] < 1.0, "while it recovered nobody trained"
    sim.until(JobPhase.SUCCEEDED)
    after = totals_s(sim.state.goodput, sim.now_s)
    grown = {name: after[name] - before[name] for name in ("productive", "degraded_loss")}
    assert grown["degraded_loss"] == pytest.approx(grown["productive"]) != 0


def test_a_job_that_has_ended_waits_for_no_node_any_more() -> None:
    sim = start()
    trained(sim, 3)
    sim._heal = lambda: None  # type: ignore[method-assign]
    sim.kill_agent(agent_of(sim, 0))
    generation(sim, 2)
    assert [c.status for c in sim.state.conditions if c.type == "Degraded"] == ["True"]
    sim.cancel()
    sim.until(JobPhase.CANCELLED)
    assert [c.status for c in sim.state.conditions if c.type == "Degraded"] == ["False"]


def test_newcomers_boot_before_the_running_ones_are_disturbed() -> None:
    sim = start()
    sim._heal = lambda: None  # type: ignore[method-assign]
    sim.kill_agent(agent_of(sim, 0))
    generation(sim, 2)
    sim._start_agent("node-0", 2)
    wait_for(sim, lambda: sim.state.sole_island.slots[0].state is SlotState.STARTING)
    orders = {d.slot: d.instruction for agent in desired_workers(sim.state).values() for d in agent}
    assert orders == {0: "standby", 1: "standby", 2: "run", 3: "run"}


def test_a_newcomer_that_dies_hurts_nobody_and_costs_no_budget() -> None:
    sim = start()
    sim._heal = lambda: None  # type: ignore[method-assign]
    sim.kill_agent(agent_of(sim, 0))
    generation(sim, 2)
    charged = sim.state.restarts
    sim._start_agent("node-0", 2)
    wait_for(sim, lambda: sim.cluster.find(sim.state.sole_island.slots[0].incarnation) is not None)
    worker(sim, 0).end(-11, sim.now_s)
    wait_for(sim, lambda: not sim.state.sole_island.slots[0].bound and not sim.state.sole_island.slots[1].bound)
    assert sim.state.phase is JobPhase.RUNNING
    assert record(sim).generation == 2
    assert sim.state.restarts == charged
    wait_for(sim, lambda: record(sim).world_size == 4)


def test_a_spare_agent_takes_the_place_of_a_lost_one() -> None:
    sim = start(agents=3)
    trained(sim, 3)
    sim._heal = lambda: None  # type: ignore[method-assign]
    sim.kill_agent(agent_of(sim, 0))
    generation(sim, 2)
    assert record(sim).rung is Rung.PEER
    assert [m.node for m in record(sim).members] == ["node-2", "node-2", "node-1", "node-1"]
    assert record(sim).store_address.startswith("node-")


def test_a_frozen_worker_is_condemned_and_its_exit_awaited() -> None:
    sim = start()
    trained(sim, 3)
    old = sim.state.sole_island.slots[2].incarnation
    progress = replace(sim.state.progress, recent_step_s=(0.2,) * 5)
    sim.state = replace(sim.state, progress=progress)
    frozen_s = sim.now_s
    sim.freeze(worker(sim, 2))
    wait_for(sim, lambda: sim.state.sole_island.slots[2].state is SlotState.CONDEMNED)
    assert 3.0 <= sim.now_s - frozen_s < 5.0
    orders = {d.slot: d for agent in desired_workers(sim.state).values() for d in agent}
    assert orders[2].instruction is Instruction.KILL
    assert orders[2].incarnation == old
    assert orders[0].instruction is Instruction.PREPARE
    generation(sim, 2)
    assert record(sim).members[2].incarnation != old
    assert sim.state.goodput.closed_us["hang"] >= 3_000_000
    wait_for(sim, lambda: sim.state.sole_island.marks is None)
    assert sim.state.recoveries[-1].phases_s["detect"] >= 3.0


def test_all_at_once_go_back_to_the_checkpoint_in_a_new_lineage() -> None:
    sim = start()
    trained(sim, 16)
    wait_for(sim, lambda: bool(sim.state.checkpoints) and sim.state.checkpoints[-1].step >= 14)
    for slot in range(4):
        worker(sim, slot).end(-9, sim.now_s)
    generation(sim, 2)
    after = record(sim)
    assert (after.rung, after.lineage) == (Rung.CHECKPOINT, 2)
    assert after.checkpoint == sim.state.checkpoints[-1]
    assert after.target_step == after.checkpoint.step == after.checkpointed_step
    assert after.holders == ()


def test_all_at_once_without_a_checkpoint_start_again() -> None:
    sim = start()
    trained(sim, 2)
    for slot in range(4):
        worker(sim, slot).end(-9, sim.now_s)
    generation(sim, 2)
    assert (record(sim).rung, record(sim).target_step) == (Rung.START, 0)


def test_a_controller_restart_changes_nothing() -> None:
    sim = start()
    trained(sim, 3)
    before = record(sim)
    sim.restart_controller(60.0)
    trained(sim, 30)
    wait_for(sim, lambda: sim.now_s > sim.settled_at_s + 5)
    assert record(sim) == before
    assert sim.state.sole_island.generation == before.generation
    assert sim.state.phase is JobPhase.RUNNING


def test_a_job_that_finishes_while_the_controller_is_away_is_not_repeated() -> None:
    sim = start(steps=20)
    sim._heal = lambda: None  # type: ignore[method-assign]
    sim.cluster.checkpoint_every = 1000  # the report of the last checkpoint is still under way
    late = agent_of(sim, 2)
    late.reachable = False
    sim.restart_controller(120.0)
    wait_for(sim, lambda: not any(w.alive for w in sim.cluster.workers()))
    wait_for(sim, lambda: sim.now_s > sim.down_until_s + 0.5)
    late.reachable = True
    sim.until(JobPhase.SUCCEEDED)
    assert (sim.state.sole_island.generation, record(sim).lineage) == (1, 1)
    assert not sim.state.recoveries
    assert {e.reason for e in sim.events if e.type == "worker.exited"} == {"Expected"}


def test_an_agent_that_comes_back_within_its_time_changes_nothing() -> None:
    sim = start()
    before = record(sim)
    sim._heal = lambda: None  # type: ignore[method-assign]
    agent = agent_of(sim, 0)
    agent.reachable = False
    wait_for(sim, lambda: bool(sim.state.suspects))
    agent.reachable = True
    wait_for(sim, lambda: not sim.state.suspects)
    assert record(sim) == before
    assert [e.type for e in sim.events if e.type.startswith("agent.")] == ["agent.suspect", "agent.back"]


def test_agents_that_die_at_once_are_waited_for_so_that_one_generation_is_prepared() -> None:
    sim = start(nodes=4, per_node=1, agents=8, steps=4000)
    sim._heal = lambda: None  # type: ignore[method-assign]
    before, island = sim.state.sole_island.generation, record(sim)
    for number, slot in enumerate((0, 1, 2)):  # found lost 0.1 s after each other: less than a heartbeat
        agent = agent_of(sim, slot)
        agent.reachable, agent.heard_s = False, sim.now_s + 0.1 * number
    generation(sim, before + 1)
    assert sim.state.sole_island.generation == before + 1
    assert not [event for event in sim.events if event.type == "generation.aborted"]
    assert {m.slot for m in record(sim).members} == {m.slot for m in island.members}


def test_a_lost_agent_is_not_waited_for_because_another_is_merely_slow() -> None:
    sim = start(nodes=2, per_node=1, agents=4, steps=4000)
    sim._heal = lambda: None  # type: ignore[method-assign]
    slow, lost = agent_of(sim, 0), agent_of(sim, 1)
    lost.alive, lost.died_s = False, sim.now_s

    def look() -> bool:
        slow.heard_s = sim.now_s - 0.5 * sim.timeouts.lost_s
        return sim.state.sole_island.proposal is not None

    wait_for(sim, look, limit_s=1.5)


def test_the_workers_of_a_returning_lost_agent_are_no_longer_wanted() -> None:
    sim = start(agents=3)
    sim._heal = lambda: None  # type: ignore[method-assign]
    lost = agent_of(sim, 0)
    lost.reachable = False
    generation(sim, 2)
    assert lost.workers
    lost.reachable = True
    wait_for(sim, lambda: not any(w.alive for w in lost.workers.values()))
    assert record(sim).generation == 2


def test_cancel_saves_a_checkpoint_first_and_ends_cancelled() -> None:
    sim = start()
    trained(sim, 2)
    sim.cancel()
    orders = [d for agent in desired_workers(sim.state).values() for d in agent]
    sim._controller()
    wait_for(sim, lambda: any(s.state is SlotState.DRAINING for s in sim.state.sole_island.slots))
    orders = [d for agent in desired_workers(sim.state).values() for d in agent]
    assert {d.instruction for d in orders} == {Instruction.STOP}
    assert all(d.checkpoint_on_stop and d.grace_s == 30.0 for d in orders)
    sim.until(JobPhase.CANCELLED)
    assert request_cancel(sim.state, sim.now_s).state is sim.state


def test_members_that_do_not_train_yet_are_asked_for_no_checkpoint_when_the_job_is_cancelled() -> None:
    sim = start()
    trained(sim, 2)
    sim.cancel()
    sim._controller()
    assert sim.state.phase is JobPhase.CANCELLING
    waiting = replace(sim.state, islands=(replace(sim.state.islands[0], entered=False),))
    for state, asked in ((sim.state, True), (waiting, False)):
        assert {d.checkpoint_on_stop for agent in desired_workers(state).values() for d in agent} == {asked}


def test_a_queued_job_is_cancelled_at_once() -> None:
    sim = Simulation(1, sim_job(nodes=NodesSpec(min=2, max=2), per_node=2), agents=1, slots=2, fault_rate=0.0)
    wait_for(sim, lambda: sim.state.reason == "WaitingForCapacity")
    assert "needs 2 nodes with 2 free worker slots each, found 1" in sim.state.message
    assert not any(s.bound for s in sim.state.sole_island.slots)
    sim.cancel()
    sim.until(JobPhase.CANCELLED, limit_s=5.0)


def test_a_job_that_no_node_can_take_says_so_and_what_to_change() -> None:
    sim = Simulation(1, sim_job(nodes=NodesSpec(), per_node=3), agents=2, slots=2, fault_rate=0.0)
    wait_for(sim, lambda: sim.state.reason == "WaitingForCapacity")
    assert (
        "no node is that large: the largest has 2 slots (lower spec.resources.workersPerNode to 2" in sim.state.message
    )


def test_a_last_state_that_was_not_saved_is_told_with_its_own_failure() -> None:
    sim = start(steps=30)
    sim.cluster.disk_full = True
    sim.until(JobPhase.FAILED)
    assert sim.state.failure is not None
    assert sim.state.failure.code == "CHECKPOINT_NOT_SAVED"
    assert "(checkpoint of step 30 failed: no space left on device)" in sim.state.failure.message
    told = [e.message for e in sim.events if e.type == "checkpoint.failed"]
    assert len(told) > 2
    assert [message.endswith("; training goes on") for message in told] == [True] * (len(told) - 1) + [False]
    (stale,) = [condition for condition in sim.state.conditions if condition.type == "CheckpointStale"]
    assert (stale.status, stale.reason, stale.message) == ("True", "SaveFailed", told[-1])


def test_below_the_minimum_survivors_wait_with_their_state() -> None:
    sim = start(least=2)
    trained(sim, 5)
    sim._heal = lambda: None  # type: ignore[method-assign]
    sim.kill_agent(agent_of(sim, 0))
    sim.until(JobPhase.QUEUED)
    assert "1 of at least 2 nodes" in sim.state.message
    survivors = {s.incarnation for s in sim.state.sole_island.slots if s.alive}
    assert len(survivors) == 2
    sim._start_agent("node-0", 2)
    wait_for(sim, lambda: sim.state.phase is JobPhase.RUNNING)
    assert record(sim).rung is Rung.PEER
    assert record(sim).lineage == 1
    assert survivors < {m.incarnation for m in record(sim).members}


def test_survivors_below_the_minimum_are_released_in_the_end() -> None:
    sim = start(least=2)
    trained(sim, 8)
    wait_for(sim, lambda: bool(sim.state.checkpoints))
    sim._heal = lambda: None  # type: ignore[method-assign]
    sim.kill_agent(agent_of(sim, 0))
    wait_for(sim, lambda: not any(s.bound for s in sim.state.sole_island.slots), limit_s=400)
    assert sim.state.phase is JobPhase.QUEUED
    sim._start_agent("node-0", 2)
    wait_for(sim, lambda: sim.state.phase is JobPhase.RUNNING)
    assert record(sim).rung is Rung.CHECKPOINT
    assert sim.state.attempt == 2


def test_it_starts_with_fewer_nodes_when_the_rest_does_not_come() -> None:
    sim = Simulation(5, sim_job(nodes=NodesSpec(min=1, max=2), per_node=2), agents=1, slots=2, fault_rate=0.0)
    began_s = sim.now_s
    sim.until(JobPhase.RUNNING)
    assert record(sim).world_size == 2
    assert sim.now_s - began_s >= sim.timeouts.replacement_wait_s


def test_the_vote_of_a_worker_that_died_after_reporting_is_honoured() -> None:
    """Rank 0 alone saw the vote; it reports it, dies, and the others must still apply that step."""
    sim = start(steps=10_000)
    trained(sim, 3)
    first = record(sim)
    step = 1 + max(worker(sim, slot).applied for slot in range(4))
    for slot in range(4):
        life = worker(sim, slot)
        life.lineage, life.applied, life.voted = 1, step - 1, outcome_of(1, 1, step - 1)
        life.retained, life.history = (1, step), (1,) * (step - 1)
    worker(sim, 0).voted = outcome_of(1, 1, step)
    sim.cluster.group(first).arrived.clear()
    worker(sim, 1).end(-9, sim.now_s)
    sim.cluster.group(first).arrive(f"vote {step}", -1)
    worker(sim, 0).voted = outcome_of(1, 1, step)
    wait_for(sim, lambda: sim.state.sole_island.evidence is not None)
    worker(sim, 0).end(-9, sim.now_s)
    generation(sim, 3)
    after = record(sim)
    assert after.target_step == step
    assert after.outcome == outcome_of(1, 1, step)
    assert after.holders == (2, 3)
    assert after.lineage == 1


def see(sim: Simulation, **progress: object) -> ClusterView:
    """The view of now, with the first member's progress changed."""
    view = sim.view()
    agents = []
    for agent in view.agents:
        workers = [
            replace(w, progress=replace(w.progress, **progress)) if w.slot == 0 else w  # type: ignore[arg-type]
            for w in agent.workers
        ]
        agents.append(replace(agent, workers=tuple(workers)))
    return replace(view, agents=ListedAgents(agents))


def test_members_interrupted_without_a_loss_try_again_together() -> None:
    sim = start()
    trained(sim, 3)
    view = see(sim, phase=Phase.INTERRUPTED, phase_age_s=1.5, generation=1)
    result = reconcile(sim.state, view, {}, sim.now_s, sim.epoch, sim.ids)
    proposal = result.state.sole_island.proposal
    assert proposal is not None
    assert proposal.members == record(sim).members
    assert "though nobody is lost" in proposal.reason
    assert len(result.state.restarts.process_s) == 1


def test_a_lost_collective_store_is_left_for_another() -> None:
    sim = start()
    island = replace(sim.state.sole_island, entered=False)
    held = record(sim)
    island = replace(island, record=replace(held, store_address="elsewhere:1"))
    state = sim.state.with_island(island)
    result = reconcile(state, sim.view(), {}, sim.now_s, sim.epoch, sim.ids)
    proposal = result.state.sole_island.proposal
    assert proposal is not None
    assert "lost the collective store at elsewhere:1" in proposal.reason


def test_nothing_is_committed_before_an_agent_offers_a_collective_store() -> None:
    sim = Simulation(7, sim_job(nodes=NodesSpec(min=1, max=1), per_node=2), agents=1, slots=2, fault_rate=0.0)
    real = sim.view

    def without() -> ClusterView:
        view = real()
        return replace(view, agents=ListedAgents(replace(agent, store_address="") for agent in view.agents))

    sim.view = without  # type: ignore[method-assign]
    wait_for(sim, lambda: sim.state.reason == "WaitingForStore")
    assert sim.state.islands[0].record is None
    sim.view = real  # type: ignore[method-assign]
    sim.until(JobPhase.RUNNING)
    assert record(sim).store_address


def test_members_that_do_not_begin_a_committed_generation_are_condemned() -> None:
    sim = start()
    island = replace(sim.state.sole_island, entered=False, committed_s=sim.now_s - 30.0)
    island = replace(island, record=replace(record(sim), generation=2), generation=2)
    state = replace(sim.state.with_island(island), epoch_since_s=0.0)
    result = reconcile(state, see(sim, phase=Phase.INTERRUPTED), {}, sim.now_s, sim.epoch, sim.ids)
    slot = result.state.sole_island.slots[0]
    assert slot.state is SlotState.CONDEMNED
    assert "did not begin generation 2 within 25 s" in slot.reason


def test_a_member_that_does_not_answer_a_proposal_is_condemned_though_its_agent_speaks() -> None:
    sim = start()
    trained(sim, 3)
    deaf = worker(sim, 2)
    deaf._prepare = lambda generation: None  # type: ignore[method-assign]
    worker(sim, 1).end(-9, sim.now_s)
    wait_for(sim, lambda: sim.state.islands[0].slots[2].state is SlotState.CONDEMNED)
    assert "did not answer PREPARE of generation 2 within 25 s" in sim.state.islands[0].slots[2].reason
    generation(sim, 2)
    assert worker(sim, 2) is not deaf


def test_different_models_on_the_members_fail_the_job() -> None:
    sim = start()
    worker(sim, 1).end(-9, sim.now_s)
    wait_for(sim, lambda: sim.state.sole_island.proposal is not None)
    end_s = sim.now_s + 60
    while sim.state.phase is not JobPhase.FAILED:
        assert sim.now_s < end_s
        for life in sim.cluster.workers():
            if life.desired.slot == 1:
                life.digest = "other"
        sim.tick()
    assert sim.state.failure is not None
    assert sim.state.failure.code == "SCHEMA_MISMATCH"


def test_the_active_deadline_fails_the_job() -> None:
    sim = start()
    job = sim.state.spec
    scheduling = replace(job.spec.scheduling, active_deadline="30s")
    sim.state = replace(sim.state, spec=replace(job, spec=replace(job.spec, scheduling=scheduling)))
    sim.until(JobPhase.FAILED)
    assert sim.state.failure is not None
    assert sim.state.failure.code == "ACTIVE_DEADLINE"


def test_resume_begins_at_the_checkpoint() -> None:
    job: TrainJob = sim_job(nodes=NodesSpec(min=1, max=1), per_node=2)
    sim = Simulation(2, job, agents=1, slots=2, fault_rate=0.0)
    ref = ref_of(20, lineage=4)
    sim.state, _ = new_job("u1", job, workdir="w", now_s=sim.now_s, resume=Resume(ref=ref))
    sim.until(JobPhase.RUNNING)
    first = record(sim)
    assert (first.rung, first.target_step, first.lineage, first.checkpoint) == (Rung.START, 20, 5, ref)
    for slot in range(2):
        worker(sim, slot).end(-9, sim.now_s)
    generation(sim, 2)
    assert record(sim).checkpoint == ref
    sim.until(JobPhase.SUCCEEDED)


@pytest.mark.parametrize("phase", list(JobPhase))
def test_every_phase_is_explained_with_what_comes_next(phase: JobPhase) -> None:
    sim = start()
    first, following, *_ = explain(replace(sim.state, phase=phase), sim.now_s)
    assert f"is {phase.value}" in first
    assert following == NEXT[phase].format(name=sim.state.name)
    assert "{" not in following


def test_how_far_it_is_is_told_of_a_job_that_lives_and_has_made_a_step() -> None:
    sim = start()
    trained(sim, 3)

    def told(state: JobState) -> bool:
        return any(line.startswith("step ") for line in explain(state, sim.now_s))

    assert told(sim.state)
    assert not told(sim.run()), "it has ended"


def test_a_job_that_waits_again_gives_back_what_a_killed_worker_still_held() -> None:
    """Found by simulation, seed 166: it waited for ever for the place that it occupied itself."""
    sim = start()
    trained(sim, 3)
    island = sim.state.sole_island
    waiting = replace(sim.state, phase=JobPhase.QUEUED, islands=(replace(island, proposal=None),))
    after = reconcile(waiting, sim.view(), {}, sim.now_s, sim.epoch, sim.ids).state
    assert {slot.state for slot in after.sole_island.slots} == {SlotState.DRAINING}
    emptied = tuple(replace(slot, state=SlotState.EMPTY) for slot in island.slots)
    waiting = replace(waiting, islands=(replace(island, proposal=None, slots=emptied),))
    after = reconcile(waiting, sim.view(), {}, sim.now_s, sim.epoch, sim.ids).state
    assert not any(slot.bound for slot in after.sole_island.slots)
