"""Somebody verified a checkpoint of a job and found it damaged: it is refused, and the job trains on.

Without it a job could go back to a checkpoint that somebody knew to be damaged.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from trainctl.controller.domain.reconcile import request_accept, request_refuse
from trainctl.controller.domain.states import JobPhase
from trainctl.core.errors import NotFoundError
from trainctl.core.records.generation import CheckpointRef, Rung
from unit.domain.domain_sim import Simulation
from unit.domain.one_job import record, wait_for, worker
from unit.domain.refusals import ALL, condition, lose_all, resumed, saved
from unit.domain.sample_reports import ref_of


def refuse(sim: Simulation, ref: CheckpointRef, found: str = "w0 is corrupt") -> tuple[str, ...]:
    """What the events say."""
    told = request_refuse(sim.state, sim.now_s, uri=ref.uri, found=found, by="ada")
    sim.persist(told)
    assert {(e.type, e.reason) for e in told.events} <= {("checkpoint.rejected", "Damaged")}
    return tuple(e.message for e in told.events)


def test_it_leaves_the_list_with_an_event_and_a_condition_and_nobody_goes_anywhere() -> None:
    sim = saved(3)
    oldest, older, newest = sim.state.checkpoints
    generation, applied = record(sim).generation, worker(sim, 0).applied
    (said,) = refuse(sim, newest)
    for part in ("of step", newest.uri, "ada, who verified it, found: w0 is corrupt", older.uri, "should the job go"):
        assert part in said
    assert sim.state.checkpoints == (oldest, older)
    assert [(one.ref, one.reason) for one in sim.state.refused] == [(newest, "w0 is corrupt")]
    assert condition(sim)[:2] == ("True", "Damaged")
    assert sim.state.checkpoint_figures.refused == 1
    assert refuse(sim, newest) == (), "said again it is known"
    wait_for(sim, lambda: worker(sim, 0).applied > applied)
    assert (record(sim).generation, sim.state.phase) == (generation, JobPhase.RUNNING)
    lose_all(sim)
    wait_for(sim, lambda: record(sim).rung is Rung.CHECKPOINT)
    assert record(sim).checkpoint == older


def test_it_can_be_taken_back() -> None:
    sim = saved(2)
    older, newest = sim.state.checkpoints
    refuse(sim, newest)
    told = request_accept(sim.state, sim.now_s, uri=newest.uri)
    assert told.state.checkpoints == (older, newest)
    assert told.state.refused == ()


def test_the_last_one_stays_so_that_nothing_begins_at_step_0_in_silence() -> None:
    sim = saved(1)
    (last,) = sim.state.checkpoints
    (said,) = refuse(sim, last)
    assert "the job has no other, so that it fails if it has to go back" in said
    assert (sim.state.checkpoints, sim.state.refused) == ((last,), ())
    assert condition(sim)[:2] == ("True", "Damaged")
    assert refuse(sim, last) == ()
    sim.cluster.damaged = {last.uri: ALL}
    lose_all(sim)
    sim.until(JobPhase.FAILED)
    assert sim.state.failure is not None
    assert sim.state.failure.code == "CHECKPOINT_DAMAGED"


def test_of_a_job_that_has_ended_the_last_one_goes_too() -> None:
    sim = saved(1)
    (last,) = sim.state.checkpoints
    sim.state = replace(sim.state, phase=JobPhase.CANCELLED)
    told = request_refuse(sim.state, sim.now_s, uri=last.uri, found="", by="")
    assert (told.state.checkpoints, [one.ref for one in told.state.refused]) == ((), [last])
    assert "somebody, who verified it, found: it is damaged; no other is left" in told.events[0].message


def test_what_a_job_is_to_begin_with_is_given_up_for_an_older_one() -> None:
    older = ref_of(10, uri="mem://old/10", lineage=4)
    sim, ref = resumed((older,))
    told = request_refuse(sim.state, sim.now_s, uri=ref.uri, found="torn", by="ada")
    assert (told.state.resume, told.state.resume_older) == (older, ())


def test_what_is_not_the_jobs_is_not_refused() -> None:
    sim = saved(2)
    for uri in ("mem://somebody/elses", ""):
        with pytest.raises(NotFoundError, match="has no checkpoint at") as refused:
            request_refuse(sim.state, sim.now_s, uri=uri, found="x", by="ada")
        assert all(ref.uri in str(refused.value) for ref in sim.state.checkpoints)


def test_words_without_end_are_cut() -> None:
    sim = saved(2)
    refuse(sim, sim.state.checkpoints[-1], "x" * 10**6)
    assert len(sim.state.refused[0].reason) == 2000
