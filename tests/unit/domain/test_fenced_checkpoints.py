"""Who was replaced may complete a checkpoint; the job's current one it never becomes. Every case, with its reason.

Without it a writer that was replaced could send a job back to a past that it has left.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from trainctl.controller.domain.desired import desired_workers
from trainctl.controller.domain.job_state import JobState
from trainctl.controller.domain.kept_checkpoints import kept_checkpoints
from trainctl.controller.domain.reconcile import observe_checkpoint, request_rollback
from trainctl.controller.domain.reconcile.result import Reconciliation
from trainctl.core.records.generation import CheckpointRef, GenerationRecord
from trainctl.core.records.worker import CheckpointReport, Instruction, WorkerDesired
from unit.domain.domain_sim import Simulation
from unit.domain.one_job import agent_of, generation, record, start, trained, wait_for, worker
from unit.domain.refusals import lose_all, saved
from unit.domain.sample_reports import ref_of


def completed(by: GenerationRecord, step: int, attempt: str = "late") -> CheckpointReport:
    """What rank 0 of a generation says of a checkpoint."""
    ref = ref_of(step, uri=f"mem://{attempt}", lineage=by.lineage, attempt=attempt)
    return CheckpointReport(
        job_uid=by.job_uid, island=by.island, generation=by.generation, step=step, lineage=by.lineage, ref=ref
    )


def told(sim: Simulation, report: CheckpointReport) -> Reconciliation:
    return observe_checkpoint(sim.state, report, sim.now_s)


def refused(sim: Simulation, report: CheckpointReport) -> str:
    """The reason; nothing of the job has changed."""
    result = told(sim, report)
    assert result.state == sim.state
    (event,) = result.events
    assert (event.type, event.fields["step"]) == ("checkpoint.rejected", str(report.step))
    return event.reason


def current(sim: Simulation, report: CheckpointReport) -> bool:
    result = told(sim, report)
    return result.state.checkpoints[-1:] != () and result.state.checkpoints[-1].attempt == "late"


def quiet(steps: int = 5) -> Simulation:
    """A job that saves nothing by itself, and stands beyond so many steps."""
    sim = start()
    sim.cluster.due = lambda interval_s, step: False  # type: ignore[method-assign]
    trained(sim, steps)
    assert sim.state.checkpoints == ()
    return sim


def lose(sim: Simulation, slot: int) -> tuple[GenerationRecord, GenerationRecord]:
    """The generations before and after a worker was lost."""
    before = record(sim)
    worker(sim, slot).end(-9, sim.now_s)
    generation(sim, before.generation + 1)
    return before, record(sim)


def test_the_generation_that_trains_makes_its_checkpoints_current() -> None:
    sim = quiet()
    assert current(sim, completed(record(sim), 4))


def test_a_frozen_writer_that_was_replaced_makes_nothing_current_though_the_step_is_of_the_lineage() -> None:
    sim = quiet()
    before, after = lose(sim, 0)  # rank 0, which seals
    assert (after.lineage, after.predecessor) == (before.lineage, before.generation)
    for step in (1, after.target_step, after.target_step + 1):
        assert refused(sim, completed(before, step)) == "OldGeneration"
    assert current(sim, completed(after, after.target_step))


def test_a_member_may_complete_what_it_began_in_the_generation_before() -> None:
    sim = quiet()
    before, after = lose(sim, 1)
    assert after.reporter == before.members[0].incarnation == after.members[0].incarnation
    assert current(sim, completed(before, after.target_step))
    assert refused(sim, completed(before, after.target_step + 1)) == "OldGeneration", "nothing stands on it"


def test_two_generations_later_it_is_nobodys() -> None:
    sim = quiet()
    before, _ = lose(sim, 1)
    lose(sim, 2)
    assert refused(sim, completed(before, 1)) == "OldGeneration"


def test_a_generation_that_was_never_committed_makes_nothing_current() -> None:
    sim = quiet()
    ahead = replace(record(sim), generation=record(sim).generation + 1)
    assert refused(sim, completed(ahead, 4)) == "OldGeneration"


def test_an_old_lineage_makes_nothing_current() -> None:
    sim = saved(2)
    before = record(sim)
    lose_all(sim)
    generation(sim, before.generation + 1)
    assert record(sim).lineage == before.lineage + 1
    assert refused(sim, completed(before, sim.state.checkpoints[-1].step + 50)) == "OldLineage"


def test_a_new_leader_alone_takes_nothing_from_those_who_train() -> None:
    # Their attempts carry the epoch of the leader that committed their generation.
    sim = quiet()
    epoch = record(sim).epoch
    sim.restart_controller(1.0)
    wait_for(sim, lambda: sim.state.epoch > epoch)
    assert record(sim).epoch == epoch
    assert current(sim, completed(record(sim), 4))


def test_an_old_epoch_is_an_old_generation_once_the_new_leader_has_committed_one() -> None:
    sim = quiet()
    epoch = record(sim).epoch
    sim.restart_controller(1.0)
    wait_for(sim, lambda: sim.state.epoch > epoch)
    before, after = lose(sim, 0)
    assert before.epoch < after.epoch
    assert refused(sim, completed(before, 4)) == "OldGeneration"


def test_it_is_refused_after_what_the_new_generation_saved() -> None:
    sim = quiet()
    before, after = lose(sim, 1)
    sim.persist(told(sim, completed(after, after.target_step, "newer")))
    assert refused(sim, completed(before, after.target_step)) == "NotNewer"


def orders(state: JobState) -> list[WorkerDesired]:
    return [order for orders in desired_workers(state).values() for order in orders]


def attempts(*refs: CheckpointRef) -> tuple[str, ...]:
    return tuple(ref.attempt for ref in refs)


def test_only_rank_0_of_the_newest_generation_hears_what_may_go() -> None:
    sim = saved(3)
    kept = attempts(*sim.state.checkpoints)
    zero = record(sim).members[0].incarnation
    assert {order.incarnation: order.kept_checkpoints for order in orders(sim.state) if order.kept_checkpoints} == {
        zero: kept
    }
    worker(sim, 0).end(-9, sim.now_s)
    sim._heal = lambda: None  # type: ignore[method-assign]
    sim.kill_agent(agent_of(sim, 0))
    wait_for(sim, lambda: sim.state.sole_island.proposal is not None)
    assert not any(order.kept_checkpoints for order in orders(sim.state)), "its generation is left"
    generation(sim, record(sim).generation + 1)
    heard = [order for order in orders(sim.state) if order.kept_checkpoints]
    assert [(order.incarnation, order.instruction) for order in heard] == [
        (record(sim).members[0].incarnation, Instruction.RUN)
    ]
    assert heard[0].incarnation != zero


def test_nobody_removes_anything_before_one_is_current() -> None:
    sim = quiet()
    assert not any(order.kept_checkpoints for order in orders(sim.state))


def test_the_target_of_a_roll_back_stays_however_few_are_kept() -> None:
    sim = saved(3)
    oldest, *_ = sim.state.checkpoints
    sim.persist(request_rollback(sim.state, sim.now_s, target=oldest))
    assert kept_checkpoints(sim.state) == (oldest.attempt,)


def test_what_is_loaded_stays_until_all_members_train_and_the_current_one_comes_last() -> None:
    sim = saved(2)
    older, newest = sim.state.checkpoints
    begun = replace(older, uri="mem://begun", attempt="begun")
    island = sim.state.sole_island
    for loaded, kept in ((begun, ("begun", *attempts(older, newest))), (newest, attempts(older, newest))):
        loads = replace(island, entered=False, record=replace(record(sim), checkpoint=loaded))
        assert kept_checkpoints(replace(sim.state, islands=(loads,))) == kept
        trains = replace(loads, entered=True)
        assert kept_checkpoints(replace(sim.state, islands=(trains,))) == attempts(older, newest)


@pytest.mark.parametrize("keep", [1, 2])
def test_a_stale_seal_never_leaves_the_list_without_what_the_new_lineage_stands_on(keep: int) -> None:
    # Rank 0 of lineage 1 completes step 20 while lineage 2, which began with step 10, has saved nothing yet.
    sim = saved(keep)
    before = record(sim)
    newest = sim.state.checkpoints[-1]
    lose_all(sim)
    generation(sim, before.generation + 1)
    assert record(sim).checkpoint == newest
    assert refused(sim, completed(before, newest.step + 10)) == "OldLineage"
    assert kept_checkpoints(sim.state)[-1] == newest.attempt
