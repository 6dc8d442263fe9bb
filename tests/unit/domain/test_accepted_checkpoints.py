"""The refusal of a checkpoint that is whole again is taken back: a job that went elsewhere does not return to it.

Without it one wrong refusal could cost a job its newest checkpoint for good.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from trainctl.controller.domain.job_state import JobState
from trainctl.controller.domain.reconcile import observe_checkpoint, request_accept, request_rollback
from trainctl.controller.domain.states import TERMINAL, JobPhase
from trainctl.core.errors import NotFoundError
from trainctl.core.records.generation import CheckpointRef, Rung
from trainctl.core.records.worker import CheckpointReport
from unit.domain.domain_sim import Simulation
from unit.domain.one_job import record, trained, wait_for, worker
from unit.domain.refusals import ALL, condition, lose_all, resumed, saved
from unit.domain.sample_reports import ref_of


def accept(sim: Simulation, ref: CheckpointRef) -> str:
    """Somebody has read it; returns what the event says."""
    sim.cluster.damaged.pop(ref.uri, None)
    told = request_accept(sim.state, sim.now_s, uri=ref.uri)
    if sim.state.phase in TERMINAL:
        assert replace(told.state, checkpoints=(), refused=()) == replace(sim.state, checkpoints=(), refused=())
        sim.state = told.state
    else:
        sim.persist(told)
    (event,) = told.events
    assert (event.type, event.reason, event.fields["step"]) == ("checkpoint.accepted", "User", str(ref.step))
    assert ref.uri in event.message
    return event.message


def refused(checkpoints: int) -> tuple[Simulation, CheckpointRef]:
    """The newest of so many checkpoints was refused a moment ago, and nobody was sent to another one yet."""
    sim = saved(checkpoints)
    newest = sim.state.checkpoints[-1]
    sim.cluster.damaged = {newest.uri: ALL}
    lose_all(sim)
    wait_for(sim, lambda: bool(sim.state.refused))
    assert record(sim).checkpoint == newest
    return sim, newest


def test_a_job_that_was_not_sent_elsewhere_goes_back_to_it() -> None:
    sim, newest = refused(2)
    assert "the job goes back to it" in accept(sim, newest)
    assert (sim.state.refused, sim.state.checkpoints[-1]) == ((), newest)
    assert condition(sim)[:2] == ("False", "Accepted")
    assert JobState.from_wire(sim.state.to_wire()) == sim.state
    generation = record(sim).generation
    wait_for(sim, lambda: record(sim).generation > generation)
    assert (record(sim).rung, record(sim).checkpoint) == (Rung.CHECKPOINT, newest)
    wait_for(sim, lambda: worker(sim, 0).applied > newest.step)


def test_a_job_that_has_gone_on_stays_where_it_is() -> None:
    sim, newest = refused(2)
    (older,) = sim.state.checkpoints
    wait_for(sim, lambda: record(sim).checkpoint == older and sim.state.sole_island.entered)
    before = sim.state
    assert "the job has gone on without it" in accept(sim, newest)
    assert sim.state.checkpoint_figures.refused == 1, "what was counted never falls"
    assert sim.state == replace(before, refused=()), "only the refusal is gone"
    late = CheckpointReport(
        job_uid="u1", island="island-0", generation=1, step=newest.step, lineage=newest.lineage, ref=newest
    )
    told = observe_checkpoint(sim.state, late, sim.now_s)
    assert told.state.checkpoints == (older,)
    assert [event.reason for event in told.events] == ["OldLineage"]
    del sim._checkpoints
    trained(sim, newest.step + 1)
    assert newest not in sim.state.checkpoints


def test_a_job_that_somebody_sends_elsewhere_at_this_moment_is_not_called_back() -> None:
    sim, newest = refused(3)
    sim.persist(request_rollback(sim.state, sim.now_s, target=sim.state.checkpoints[0]))
    wanted = sim.state.checkpoints
    assert "gone on without it" in accept(sim, newest)
    assert sim.state.checkpoints == wanted


def test_an_ended_job_lists_it_again_in_its_place() -> None:
    sim = saved(3)
    refs = sim.state.checkpoints
    sim.cluster.damaged = {ref.uri: ALL for ref in refs}
    lose_all(sim)
    sim.until(JobPhase.FAILED)
    assert sim.state.checkpoints == ()
    for ref in (refs[2], refs[0], refs[1]):
        assert "listed again" in accept(sim, ref)
    assert (sim.state.checkpoints, sim.state.refused) == (refs, ())


def test_what_the_job_was_told_to_begin_with_is_never_taken_for_its_own() -> None:
    older = ref_of(10, uri="mem://old/10", lineage=4)
    sim, ref = resumed((older,))
    wait_for(sim, lambda: bool(sim.state.refused))
    assert "the job goes back to it" in accept(sim, ref)
    assert (sim.state.resume, sim.state.resume_older, sim.state.checkpoints) == (ref, (older,), ())
    sim.until(JobPhase.RUNNING)
    assert record(sim).checkpoint == ref
    sim, ref = resumed(())
    sim.until(JobPhase.FAILED)
    assert "another job can begin with it" in accept(sim, ref)
    assert sim.state.checkpoints == (), "it is another job's: removing checkpoints of this one must not take it along"


def test_asking_twice_does_no_harm_and_what_was_never_refused_is_named() -> None:
    sim, newest = refused(2)
    accept(sim, newest)
    again = request_accept(sim.state, sim.now_s, uri=newest.uri)
    assert (again.state, again.events) == (sim.state, ())
    sim, newest = refused(2)
    with pytest.raises(NotFoundError, match="has refused no checkpoint at mem://x") as caught:
        request_accept(sim.state, sim.now_s, uri="mem://x")
    assert f"step {newest.step}: {newest.uri}" in str(caught.value)
