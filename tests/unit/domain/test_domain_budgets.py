"""What fails a job, and what is tried again: exceptions, crashes, errors that would come again, and what is charged.

Without it a job that can never work is tried for ever, or one that could is given up.
"""

from __future__ import annotations

import pytest

from trainctl.controller.domain.desired import desired_workers
from trainctl.controller.domain.explain import explain
from trainctl.controller.domain.states import JobPhase
from trainctl.core.records.generation import Rung
from trainctl.core.records.spec import NodesSpec
from trainctl.core.records.worker import WorkerError
from unit.domain.domain_sim import Simulation, sim_job
from unit.domain.one_job import agent_of, generation, limit_user, record, start, trained, wait_for, worker


def raise_in(sim: Simulation, slot: int, message: str, code: str = "USER_EXCEPTION") -> None:
    target = worker(sim, slot)
    step = 9 if code == "USER_EXCEPTION" else 0
    target.error = WorkerError(
        type="ValueError", message=message, step=step, code=code, traceback="Traceback ...", log_tail=("last words",)
    )
    target.end(1, sim.now_s)


def test_the_same_user_exception_again_fails_the_job_with_all_that_is_known() -> None:
    sim = start()
    limit_user(sim, 5)
    trained(sim, 3)
    raise_in(sim, 2, "shape mismatch")
    generation(sim, 2)
    raise_in(sim, 2, "shape mismatch")
    sim.until(JobPhase.FAILED)
    failure = sim.state.failure
    assert failure is not None
    assert (failure.code, failure.slot, failure.global_rank, failure.node) == ("USER_EXCEPTION", 2, 2, "node-1")
    assert failure.error is not None
    assert failure.error.log_tail == ("last words",)
    assert "same exception in the same step" in failure.message
    (recovery,) = sim.state.recoveries
    assert recovery.generation == 2, "what failed the job was not recovered from"
    assert sim.state.recovery_count == 1
    assert not desired_workers(sim.state)
    assert any("what to do" in sentence for sentence in explain(sim.state, sim.now_s))


def test_every_crash_that_is_charged_is_counted_as_a_restart() -> None:
    sim = start()
    for number in (1, 2):
        worker(sim, 1).end(-9, sim.now_s)
        generation(sim, number + 1)
        assert sim.state.restarts.total == number


def test_one_exception_on_all_ranks_is_one_incident() -> None:
    sim = start()
    limit_user(sim, 1)
    for slot in range(4):
        raise_in(sim, slot, "bad batch")
    generation(sim, 2)
    assert sim.state.phase is not JobPhase.FAILED
    raise_in(sim, 0, "another one")
    sim.until(JobPhase.FAILED)
    assert sim.state.failure is not None
    assert "budget" in sim.state.failure.message


def test_an_exception_while_booting_is_not_tried_for_ever() -> None:
    sim = Simulation(3, sim_job(nodes=NodesSpec(min=1, max=1), per_node=2), agents=1, slots=2, fault_rate=0.0)
    end_s = sim.now_s + 100
    while sim.state.phase is not JobPhase.FAILED:
        assert sim.now_s < end_s
        for found in sim.cluster.workers():
            if found.alive:
                found.error = WorkerError(type="ImportError", message="no module", step=0)
                found.end(1, sim.now_s)
        sim.tick()
    assert sim.state.failure is not None
    assert sim.state.failure.code == "USER_EXCEPTION"


@pytest.mark.parametrize("code", ["DATA_UNUSABLE", "CHECKPOINT_UNUSABLE", "PROGRAM_UNUSABLE", "FAILED_PRECONDITION"])
def test_what_would_fail_again_fails_at_once_with_a_hint(code: str) -> None:
    sim = start()
    raise_in(sim, 0, "no such folder", code)
    sim.until(JobPhase.FAILED)
    assert sim.state.failure is not None
    assert sim.state.failure.code == code
    assert sim.state.failure.hint


def test_a_hint_of_the_worker_that_knows_better_is_taken() -> None:
    sim = start()
    worker(sim, 0).error = WorkerError(
        type="CheckpointError", message="cut", code="CHECKPOINT_UNUSABLE", hint="fetch the folder again"
    )
    worker(sim, 0).end(1, sim.now_s)
    sim.until(JobPhase.FAILED)
    assert sim.state.failure is not None
    assert sim.state.failure.hint == "fetch the folder again"


def test_what_is_redone_counts_from_the_newest_step_even_if_a_checkpoint_turns_out_to_be_damaged() -> None:
    sim = start()
    wait_for(sim, lambda: len(sim.state.checkpoints) == 2)
    trained(sim, sim.state.checkpoints[-1].step + 3)
    sim._checkpoints = lambda: None  # type: ignore[method-assign]
    older, newest = (ref.step for ref in sim.state.checkpoints)
    stood = max(worker(sim, slot).applied for slot in range(4))
    tokens = sim.state.progress.tokens - sim.state.progress.step * 100
    for slot in range(4):
        worker(sim, slot).end(-9, sim.now_s)
    wait_for(sim, lambda: record(sim).rung is Rung.CHECKPOINT)
    assert record(sim).target_step == newest
    stood = newest + sim.state.recoveries[-1].lost_steps
    for slot in range(4):
        raise_in(sim, slot, "a chunk is damaged", "CHECKPOINT_UNUSABLE")
    wait_for(sim, lambda: record(sim).target_step == older)
    recovery = sim.state.recoveries[-1]
    assert recovery.lost_steps == stood - older > newest - older
    assert recovery.reason.endswith(f"and redo {stood - older} steps")
    assert sim.state.progress.tokens - sim.state.progress.step * 100 == tokens


def test_the_crash_budget_is_kept() -> None:
    sim = start()
    limit_user(sim, 1, process=2)
    for number in range(2):
        worker(sim, 1).end(-11, sim.now_s)
        generation(sim, number + 2)
    worker(sim, 1).end(-11, sim.now_s)
    sim.until(JobPhase.FAILED)
    assert sim.state.failure is not None
    assert sim.state.failure.code == "RESTART_BUDGET"
    assert "process crash number 3 within" in sim.state.failure.message


def joiners_lose_their_sources(*, shrink: bool) -> Simulation:
    """Workers 2 and 3 are replaced and have received a part when 0 and 1 die, before anything was saved."""
    sim = start()
    limit_user(sim, 1, process=2)
    sim.cluster.checkpoint_every = 1000
    trained(sim, 1)
    for slot in (2, 3):
        worker(sim, slot).end(-9, sim.now_s)
    wait_for(sim, lambda: record(sim).generation == 2)
    for slot in (2, 3):
        joiner = worker(sim, slot)
        joiner.receiving, joiner.applied, joiner.pristine = 2, -1, False
    sim.kill_agent(agent_of(sim, 0))
    if shrink:
        sim._heal = lambda: None  # type: ignore[method-assign]  # the node does not come back
    else:
        sim._start_agent("node-9", 2)
    return sim


def test_joiners_that_received_a_part_get_the_initial_state_from_new_ones() -> None:
    sim = joiners_lose_their_sources(shrink=False)
    joiners = [worker(sim, slot).incarnation for slot in (2, 3)]
    generation(sim, 3)
    assert (record(sim).rung, record(sim).lineage, record(sim).holders) == (Rung.START, 2, (0, 1))
    assert [worker(sim, slot).incarnation for slot in (2, 3)] == joiners
    trained(sim, 3)
    assert record(sim).lineage == 2


def test_where_nobody_has_the_initial_state_any_more_new_workers_make_it_and_no_budget_is_charged() -> None:
    sim = joiners_lose_their_sources(shrink=True)
    charged = sim.state.restarts
    wait_for(sim, lambda: record(sim).lineage == 3 and sim.state.sole_island.entered)
    assert sim.state.restarts == charged
    assert record(sim).world_size == 2
