"""Command jobs in the core: every restart is whole, charged once and to its cause, and told as what it is.

Without it a command that fails could be restarted for ever, or charged for the loss of a node.
"""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from trainctl.controller.domain.explain import explain
from trainctl.controller.domain.hang import silent_rank
from trainctl.controller.domain.reconcile.wishes import refuse_ending, rollback_target
from trainctl.controller.domain.states import JobPhase, SlotState
from trainctl.core.errors import PreconditionError
from trainctl.core.records.generation import GenerationRecord, Rung
from trainctl.core.records.spec import HEARTBEAT, LOG, NOTHING, HangSpec, MaxRestartsSpec, NodesSpec
from trainctl.core.records.worker import Progress, WorkerError, WorkerPhase
from trainctl.core.timeouts import Timeouts
from unit.domain.command_sim import CommandSimulation, CommandWorker, command_job

SHAPES = ((NodesSpec(min=1, max=1), 4, 1), (NodesSpec(min=1, max=2), 2, 2), (NodesSpec(min=2, max=2), 2, 3),
          (NodesSpec(min=1, max=4), 1, 4))  # fmt: skip


@pytest.mark.parametrize("watch", [NOTHING, LOG, HEARTBEAT])
@pytest.mark.parametrize("shape", range(len(SHAPES)))
def test_faults_in_any_order_keep_every_invariant_and_the_command_finishes(shape: int, watch: str) -> None:
    nodes, per_node, agents = SHAPES[shape]
    for seed in range(3):
        job = command_job(nodes=nodes, per_node=per_node, watch=watch)
        sim = CommandSimulation(seed, job, agents=agents, slots=per_node)
        assert sim.run().phase is JobPhase.SUCCEEDED, f"seed {seed}"
        assert sim.done_s >= sim.work_s
        assert not any("peer" in event.message or "checkpoint" in event.message for event in sim.events)


@pytest.mark.parametrize("shape", range(len(SHAPES)))
def test_a_cancel_at_any_moment_ends_cancelled_with_nobody_left(shape: int) -> None:
    nodes, per_node, agents = SHAPES[shape]
    for seed in range(3):
        sim = CommandSimulation(seed, command_job(nodes=nodes, per_node=per_node), agents=agents, slots=per_node)
        sim.work_s = 1e6
        cancel_at_s = sim.now_s + sim.rng.uniform(0.0, 30.0)
        while sim.now_s < cancel_at_s:
            sim.tick()
        sim.cancel()
        assert sim.run(limit_s=300.0).phase is JobPhase.CANCELLED, f"seed {seed}"
        assert not any(slot.bound for slot in sim.state.sole_island.slots)


def start(
    *, watch: str = NOTHING, restarts: MaxRestartsSpec | None = None, work_s: float = 1e6, nodes: int = 2
) -> CommandSimulation:
    job = command_job(
        nodes=NodesSpec(min=1, max=nodes), per_node=2, watch=watch, restarts=restarts or MaxRestartsSpec()
    )
    sim = CommandSimulation(7, job, agents=nodes, slots=2, fault_rate=0.0)
    sim.work_s = work_s
    sim.until(JobPhase.RUNNING)
    return sim


def record(sim: CommandSimulation) -> GenerationRecord:
    found = sim.state.sole_island.record
    assert found is not None
    return found


def worker(sim: CommandSimulation, rank: int) -> CommandWorker:
    return sim.members()[rank]


def state_of(sim: CommandSimulation, slot: int) -> SlotState:
    return sim.state.sole_island.slots[slot].state


def generation(sim: CommandSimulation, number: int, limit_s: float = 100.0) -> None:
    end_s = sim.now_s + limit_s
    while not (record(sim).generation >= number and sim.state.sole_island.entered):
        assert sim.now_s < end_s, f"{sim.state.phase}: {sim.state.message}"
        sim.tick()


def test_a_killed_launcher_means_a_new_start_for_all_and_says_so() -> None:
    sim = start()
    before = record(sim)
    worker(sim, 1).end(-9, sim.now_s)
    generation(sim, 2)
    after = record(sim)
    assert (after.rung, after.restarts, after.lineage, after.holders) == (Rung.RESTART, 1, 1, ())
    assert after.reason == "the command is started again on all 4 ranks: lost worker 1"
    changed = [a.global_rank for a, b in zip(before.members, after.members, strict=True) if a != b]
    assert changed == [1], "launchers that live keep their processes"
    (recovery,) = sim.state.recoveries
    assert (recovery.rung, recovery.candidates, recovery.lost_steps) == ("restart", (), 0)
    assert recovery.phases_s["total"] > 0, "the recovery ends when the command runs everywhere"
    said = " ".join([*explain(sim.state, sim.now_s), *(event.message for event in sim.events)])
    assert "peer" not in said
    assert "after step" not in said
    assert "the command runs again after" in said


def test_the_command_is_done_when_all_ranks_exited_with_0() -> None:
    sim = start(work_s=3.0)
    assert sim.run().phase is JobPhase.SUCCEEDED
    assert sim.state.message == "the command of job sim ended with exit code 0 on all ranks"
    assert sim.state.restarts.total == 0


def test_a_rank_that_finished_starts_again_with_the_others() -> None:
    sim = start()
    worker(sim, 0).phase = WorkerPhase.FINISHED
    while state_of(sim, 0) is not SlotState.FINISHED:
        sim.tick()
    life = worker(sim, 0).incarnation
    worker(sim, 3).fail(3, sim.now_s)
    generation(sim, 2)
    assert worker(sim, 0).incarnation == life
    assert state_of(sim, 0) is SlotState.ACTIVE
    sim.work_s = sim.done_s + 3.0
    assert sim.run().phase is JobPhase.SUCCEEDED


def test_ranks_that_fail_together_are_charged_once_and_to_the_first() -> None:
    sim = start(restarts=MaxRestartsSpec(user=1, process=0))
    worker(sim, 2).fail(3, sim.now_s)
    worker(sim, 0).fail(1, sim.now_s + 0.01)
    worker(sim, 3).fail(-6, sim.now_s + 0.02)
    generation(sim, 2)
    assert [fault.slot for fault in sim.state.restarts.user] == [2]
    assert sim.state.restarts.total == 1
    worker(sim, 2).fail(3, sim.now_s)
    worker(sim, 0).fail(1, sim.now_s + 0.01)
    assert sim.run().phase is JobPhase.FAILED
    failure = sim.state.failure
    assert failure is not None
    assert (failure.code, failure.slot, failure.global_rank, failure.node) == ("COMMAND_EXIT", 2, 2, "node-1")
    assert "its command ended with exit code 3 on node-1; maxRestarts.user (1) is used up" in failure.message
    assert failure.error is not None
    assert failure.error.log_tail == ("boo",)


def test_signals_are_charged_as_crashes() -> None:
    sim = start(restarts=MaxRestartsSpec(user=0, process=1))
    worker(sim, 0).fail(-9, sim.now_s)
    generation(sim, 2)
    worker(sim, 0).fail(-9, sim.now_s)
    assert sim.run().phase is JobPhase.FAILED
    assert sim.state.failure is not None
    assert sim.state.failure.code == "RESTART_BUDGET"
    assert "was ended by SIGKILL" in sim.state.failure.message


def test_exit_codes_that_a_lost_agent_caused_are_not_the_users() -> None:
    """The survivors' commands fail at once, the silent agent is given up seconds later."""
    sim = start(restarts=MaxRestartsSpec(user=1, process=5))
    sim._heal = lambda: None  # type: ignore[method-assign]
    agent = next(a for a in sim.cluster.agents if a.node == "node-1")
    agent.reachable = False
    worker(sim, 0).fail(1, sim.now_s)
    while not sim.state.restarts.user:
        sim.tick()
    generation(sim, 2)
    assert sim.state.restarts.user == ()
    assert len(sim.state.restarts.process_s) == 1


def test_a_lost_agent_is_one_crash_with_however_many_ranks() -> None:
    sim = start(restarts=MaxRestartsSpec(user=0, process=1))
    sim.kill_agent(next(a for a in sim.cluster.agents if a.node == "node-1"))
    generation(sim, 2)
    assert len(sim.state.restarts.process_s) == 1


def test_nodes_come_and_go_and_each_time_all_start_with_the_new_size() -> None:
    sim = start()
    heal, sim._heal = sim._heal, lambda: None  # type: ignore[method-assign]
    sim.kill_agent(next(a for a in sim.cluster.agents if a.node == "node-0"))
    generation(sim, 2)
    assert record(sim).world_size == 2
    assert [m.slot for m in record(sim).members] == [2, 3]
    assert "global batch" not in record(sim).reason
    sim._heal = heal  # type: ignore[method-assign]
    sim._start_agent("node-0", 2)
    generation(sim, 3)
    assert record(sim).world_size == 4
    assert record(sim).reason == "the command is started again on all 4 ranks: grow from 2 to 4 workers"
    assert sim.state.restarts.total == 1, "a change of size is nobody's failure"


@pytest.mark.parametrize(
    ("watch", "sign"), [(LOG, "printed nothing for"), (HEARTBEAT, "did not touch its heartbeat file for")]
)
def test_silence_is_a_hang_that_costs_a_crash(watch: str, sign: str) -> None:
    sim = start(watch=watch)
    lives = [m.incarnation for m in record(sim).members]
    worker(sim, 3).silent_since_s = sim.now_s
    began_s = sim.now_s
    generation(sim, 2)
    assert sim.now_s - began_s > 5.0
    assert [m.incarnation for m in record(sim).members] == lives, "a launcher that answers need not end"
    fault = sim.state.recoveries[-1].fault
    assert f"worker 3 (rank 3) on node-1 {sign}" in fault
    assert "(limit 5s)" in fault
    assert len(sim.state.restarts.process_s) == 1
    assert sim.state.goodput.closed_us["hang"] > 5e6
    assert sim.state.recoveries[-1].started_s == pytest.approx(began_s, abs=0.5), "when it fell silent, not when found"


def test_without_a_watch_a_silent_command_is_left_alone() -> None:
    sim = start()
    for member in sim.members():
        member.silent_since_s = -1.0
    end_s = sim.now_s + 100.0
    while sim.now_s < end_s:
        sim.tick()
    assert record(sim).generation == 1


@pytest.mark.parametrize("seed", range(20))
def test_silence_of_one_rank_or_of_all(seed: int) -> None:
    rng = random.Random(seed)
    timeouts = Timeouts.for_profile("fast")
    ages_s = {rank: rng.uniform(0.0, 20.0) for rank in range(rng.randint(1, 8))}
    longest = max(ages_s, key=lambda rank: ages_s[rank])

    def found(watch: str, *, heard: bool, after: str = "10s") -> int | None:
        seen = {r: Progress(phase_age_s=s + 5.0 if heard else s, alive_age_s=s) for r, s in ages_s.items()}
        return silent_rank(seen, HangSpec(watch=watch, after=after), timeouts)

    assert found(NOTHING, heard=True, after="1s") is None
    assert found(HEARTBEAT, heard=True) == (longest if ages_s[longest] > 10 else None)
    assert found(LOG, heard=True) == (longest if min(ages_s.values()) > 10 else None)
    assert found(HEARTBEAT, heard=False) is None, "a start may take the profile's boot_s"
    assert silent_rank({}, HangSpec(watch=LOG, after="10s"), timeouts) is None


def test_exactly_as_long_as_was_allowed_is_no_hang() -> None:
    timeouts = Timeouts.for_profile("fast")
    for age_s, found in ((10.0, None), (10.5, 0)):
        seen = {0: Progress(phase_age_s=60.0, alive_age_s=age_s)}
        assert silent_rank(seen, HangSpec(watch=HEARTBEAT, after="10s"), timeouts) == found


def test_a_start_without_any_sign_of_life_is_a_hang_at_last() -> None:
    timeouts = Timeouts.for_profile("fast")
    dead = {0: Progress(phase_age_s=timeouts.boot_s + 1, alive_age_s=timeouts.boot_s + 1)}
    assert silent_rank(dead, HangSpec(watch=LOG, after="1s"), timeouts) == 0
    assert silent_rank(dead, HangSpec(watch=LOG, after="1h"), timeouts) is None


def test_a_command_that_cannot_be_started_is_not_tried_again_and_names_the_rank() -> None:
    job = command_job(nodes=NodesSpec(min=2, max=2), per_node=2, restarts=MaxRestartsSpec(user=5, process=5))
    sim = CommandSimulation(7, job, agents=2, slots=2, fault_rate=0.0)
    while not any(w.desired.slot == 3 for w in sim.cluster.workers()):
        sim.tick()
    broken = next(w for w in sim.cluster.workers() if w.desired.slot == 3)
    broken.error = WorkerError(type="CommandUnusableError", message="no program 'x' in PATH", code="COMMAND_UNUSABLE")
    broken.end(1, sim.now_s)
    assert sim.run().phase is JobPhase.FAILED
    failure = sim.state.failure
    assert failure is not None
    assert failure.code == "COMMAND_UNUSABLE"
    assert "worker 3 (rank 3) failed: no program 'x' in PATH on node-1; cannot go on" in failure.message
    assert sim.state.restarts.total == 0


@pytest.mark.parametrize("phase", list(JobPhase))
def test_nothing_is_said_of_a_commands_checkpoints(phase: JobPhase) -> None:
    state = replace(start().state, phase=phase)
    assert not any("checkpoint" in line or "agreed on the step" in line for line in explain(state, 0.0))
    with pytest.raises(PreconditionError, match="keeps its state itself") as error:
        rollback_target(state, None)
    assert error.value.hint.endswith("trainctl restart sim")
    ended = replace(state, phase=JobPhase.FAILED)
    with pytest.raises(PreconditionError) as error:
        refuse_ending(ended, "paused")
    assert error.value.hint == "it has ended; submit it again"


def test_the_explanation_counts_the_starts_of_a_command() -> None:
    sim = start()
    sim.until(JobPhase.RUNNING)
    assert any("start 1 of the command" in line for line in explain(sim.state, sim.now_s))


def test_a_cancelled_command_left_no_checkpoint_and_nobody_says_so() -> None:
    sim = start()
    sim.until(JobPhase.RUNNING)
    sim.cancel()
    sim.until(JobPhase.CANCELLED)
    assert sim.state.message.endswith("was cancelled")
