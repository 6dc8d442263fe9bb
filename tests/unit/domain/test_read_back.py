"""With keep.last: 1 what came before stays until the newest was read back: the job always has one that may be right.

Without it a job could remove its last good checkpoint for one that cannot be read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from trainctl.controller.domain.desired import desired_workers
from trainctl.controller.domain.job_state import JobState
from trainctl.controller.domain.kept_checkpoints import kept_checkpoints, listed, to_read_back
from trainctl.controller.domain.reconcile import observe_checkpoint, request_accept, request_pin
from trainctl.controller.domain.reconcile.result import Reconciliation
from trainctl.controller.domain.states import JobPhase
from trainctl.core.records.generation import CheckpointRef, Rung
from trainctl.core.records.worker import CheckpointReport
from unit.domain.domain_sim import Simulation
from unit.domain.one_job import generation, limit_user, record, start, trained, wait_for, worker
from unit.domain.refusals import ALL, condition, lose_all
from unit.domain.sample_reports import ref_of


def job(*steps: int, keep: int = 1, pinned: Sequence[int] = ()) -> JobState:
    """A job with checkpoints of so many steps."""
    state = start().state
    checkpoint = state.spec.spec.checkpoint
    checkpoint = replace(checkpoint, keep=replace(checkpoint.keep, last=keep))
    spec = replace(state.spec, spec=replace(state.spec.spec, checkpoint=checkpoint))
    uris = tuple(ref_of(step).uri for step in pinned)
    return replace(state, spec=spec, checkpoints=tuple(map(ref_of, steps)), pinned=uris)


@pytest.mark.parametrize(
    ("known", "keep", "pinned", "left", "read"),
    [
        ((10,), 1, (), (10,), 0),
        ((10, 20), 1, (), (10, 20), 20),
        ((10, 20, 30), 1, (), (10, 20, 30), 20),
        ((10, 20, 30, 40), 1, (), (10, 20, 40), 20),
        ((5, 10, 20, 30, 40), 1, (5,), (5, 10, 20, 40), 20),
        ((10, 20, 30), 1, (10,), (10, 20, 30), 30),
        ((10, 20, 30), 1, (20,), (10, 20, 30), 20),
        ((10, 20, 30, 40), 1, (30,), (10, 20, 30, 40), 20),
        ((10, 20), 1, (20,), (10, 20), 20),
        ((10, 20), 1, (10, 20), (10, 20), 0),
        ((10, 20, 30), 2, (), (20, 30), 0),
        ((10, 20, 30, 40), 2, (10,), (10, 30, 40), 0),
    ],
)
def test_what_is_listed_and_what_is_read(
    known: Sequence[int], keep: int, pinned: Sequence[int], left: Sequence[int], read: int
) -> None:
    state = job(keep=keep, pinned=pinned)
    found = listed(state, tuple(map(ref_of, known)))
    assert [ref.step for ref in found] == list(left)
    assert to_read_back(replace(state, checkpoints=found)) == (f"at-{read}" if read else "")


def saving(keep: int = 1, steps: int = 1) -> Simulation:
    """A job with so many checkpoints, and no further one comes by itself."""
    sim = start()
    limit_user(sim, 0, process=3)
    checkpoint = sim.state.spec.spec.checkpoint
    checkpoint = replace(checkpoint, keep=replace(checkpoint.keep, last=keep))
    sim.state = replace(
        sim.state, spec=replace(sim.state.spec, spec=replace(sim.state.spec.spec, checkpoint=checkpoint))
    )
    wait_for(sim, lambda: len(sim.state.checkpoints) == steps)
    trained(sim, sim.state.checkpoints[-1].step + 2)
    sim._checkpoints = lambda: None  # type: ignore[method-assign]
    return sim


def found(sim: Simulation, ref: CheckpointRef, error: str = "", *, by: int = 0) -> Reconciliation:
    """What rank 0 of a generation says of a checkpoint."""
    report = CheckpointReport(
        job_uid="u1",
        island="island-0",
        generation=by or record(sim).generation,
        step=ref.step,
        lineage=ref.lineage,
        ref=ref,
        error=error,
        seconds=2.5,
        read_back=True,
    )
    return observe_checkpoint(sim.state, report, sim.now_s)


def test_the_one_before_goes_once_rank_0_has_read_the_newest() -> None:
    sim = saving(steps=2)
    older, newest = sim.state.checkpoints
    orders = [order for orders in desired_workers(sim.state).values() for order in orders]
    assert [order.read_back for order in orders if order.kept_checkpoints] == [newest.attempt]
    assert [order.read_back for order in orders if not order.kept_checkpoints] == [""] * (len(orders) - 1)
    assert kept_checkpoints(sim.state) == (older.attempt, newest.attempt)
    told = found(sim, newest)
    assert told.state.checkpoints == (newest,)
    (event,) = told.events
    assert (event.type, event.reason) == ("checkpoint.read_back", "Whole")
    assert f"step {newest.step} was read back in 2.50s" in event.message
    assert f"step {older.step} goes" in event.message
    sim.persist(told)
    assert to_read_back(sim.state) == ""
    again = found(sim, newest)
    assert (again.state, again.events) == (sim.state, ())


def test_a_damaged_one_is_refused_and_the_job_trains_on_with_the_one_before() -> None:
    sim = saving(steps=2)
    older, newest = sim.state.checkpoints
    generation_before = record(sim).generation
    told = found(sim, newest, "param of w is corrupt")
    sim.persist(told)
    (event,) = told.events
    assert (event.type, event.reason) == ("checkpoint.rejected", "Damaged")
    assert "which read it back, found: param of w is corrupt" in event.message
    assert f"of step {older.step}: {older.uri}, which costs" in event.message
    assert event.message.endswith("more should the job go back")
    assert condition(sim)[:2] == ("True", "Damaged")
    assert (sim.state.checkpoints, [one.ref for one in sim.state.refused]) == ((older,), [newest])
    assert (kept_checkpoints(sim.state), to_read_back(sim.state)) == ((older.attempt,), "")
    trained(sim, newest.step + 4)
    assert record(sim).generation == generation_before, "nobody goes anywhere"
    lose_all(sim)
    wait_for(sim, lambda: record(sim).rung is Rung.CHECKPOINT)
    assert record(sim).checkpoint == older


def test_a_job_that_is_lost_before_the_newest_was_read_still_has_the_one_before() -> None:
    sim = saving(steps=2)
    older, newest = sim.state.checkpoints
    sim.cluster.damaged = {newest.uri: ALL}
    lose_all(sim)
    wait_for(sim, lambda: record(sim).checkpoint == older and sim.state.sole_island.entered)
    assert sim.state.phase is JobPhase.RUNNING


def test_with_two_or_more_nothing_is_read_back() -> None:
    sim = saving(keep=2, steps=2)
    assert not any(order.read_back for orders in desired_workers(sim.state).values() for order in orders)


def test_who_was_replaced_has_no_say_and_who_comes_after_is_asked() -> None:
    sim = saving(steps=2)
    newest = sim.state.checkpoints[-1]
    before = record(sim).generation
    worker(sim, 0).end(-9, sim.now_s)
    generation(sim, before + 1)
    for error in ("", "bits"):
        late = found(sim, newest, error, by=before)
        assert (late.state, late.events) == (sim.state, ())
    (order,) = [o for orders in desired_workers(sim.state).values() for o in orders if o.read_back]
    assert (order.incarnation, order.read_back) == (record(sim).members[0].incarnation, newest.attempt)


def test_what_is_said_of_a_checkpoint_that_the_job_no_longer_has_changes_nothing() -> None:
    sim = saving(steps=2)
    for error in ("", "its files are gone"):
        told = found(sim, ref_of(7), error)
        assert (told.state, told.events) == (sim.state, ())


def test_a_pinned_one_before_it_stays() -> None:
    sim = saving(steps=2)
    older, newest = sim.state.checkpoints
    sim.persist(request_pin(sim.state, sim.now_s, step=older.step, pinned=True))
    assert to_read_back(sim.state) == "", "nothing waits for it any more"
    told = found(sim, newest)
    assert (told.state, told.events) == (sim.state, ())


def test_a_repaired_one_is_the_jobs_again_since_it_never_went_elsewhere() -> None:
    sim = saving(steps=2)
    older, newest = sim.state.checkpoints
    sim.persist(found(sim, newest, "bits"))
    told = request_accept(sim.state, sim.now_s, uri=newest.uri)
    assert told.state.checkpoints == (older, newest)
    assert "it is one of the job's again" in told.events[0].message
    assert to_read_back(told.state) == newest.attempt
