"""What a job's history says of a change of leaders: once, with the first thing that the new one writes.

Without it nobody could see in a job's history that leaders changed.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from trainctl.controller.domain.events import EventDraft
from trainctl.controller.domain.job_state import JobState
from trainctl.controller.domain.reconcile import Reconciliation, request_pin
from trainctl.controller.domain.states import JobPhase
from trainctl.controller.domain.term import Term, TermRecord, noted
from trainctl.core.records.spec import NodesSpec
from unit.domain.domain_sim import Simulation, sim_job
from unit.domain.sample_reports import ref_of

FORMER = TermRecord(epoch=1, holder="first:10", address="first:7000", ttl_s=10.0, seen_s=1000.0)
NOW = TermRecord(epoch=2, holder="second:20", address="second:7000", ttl_s=10.0, seen_s=1012.0)
ORPHAN_S = 600.0


def term(former: TermRecord | None = FORMER, *, since_s: float = 1012.0, last_write_s: float = 1000.5) -> Term:
    return Term.begun(NOW, former, since_s=since_s, last_write_s=last_write_s, orphan_timeout_s=ORPHAN_S)


@pytest.fixture(scope="module")
def running() -> JobState:
    sim = Simulation(7, sim_job(nodes=NodesSpec(min=1, max=1), per_node=2, steps=400), agents=1, slots=2, fault_rate=0)
    sim.until(JobPhase.RUNNING)
    ref = ref_of(1)
    return replace(sim.state, epoch=1, checkpoints=(ref,))


def told(before: JobState, term: Term) -> list[EventDraft]:
    result = Reconciliation(state=replace(before, message="changed"))
    return list(noted(before, result, term, 1013.0).events)


def test_the_first_change_says_who_leads_and_only_that_one(running: JobState) -> None:
    pinned = request_pin(running, 1013.0, step=1, pinned=True)
    first = noted(running, pinned, term(), 1013.0)
    assert [event.type for event in first.events] == ["leader.changed", "checkpoint.pinned"]
    assert first.events[0].reason == "NewTerm"
    assert (first.state.epoch, first.state.epoch_since_s) == (2, 1013.0)
    assert replace(first.state, epoch=1, epoch_since_s=running.epoch_since_s) == pinned.state
    event = first.events[0]
    assert event.message == (
        "second:20 at second:7000 (epoch 2) leads now, after first:10 at first:7000 (epoch 1); "
        "nobody led for at most 12s; workers go on without a leader"
    )
    assert event.fields == {
        "leader": "second:20", "address": "second:7000", "epoch": "2", "former_leader": "first:10",
        "former_address": "first:7000", "former_epoch": "1", "vacant_since_s": "1000.500", "vacant_s": "11.500",
    }  # fmt: skip
    again = request_pin(first.state, 1014.0, step=1, pinned=False)
    assert noted(first.state, again, term(), 1014.0) is again


def test_what_is_not_stored_and_who_has_ended_is_told_nothing(running: JobState) -> None:
    telemetry = Reconciliation(state=replace(running, message="changed"), durable=False)
    assert noted(running, telemetry, term(), 1013.0) is telemetry
    assert told(replace(running, phase=JobPhase.SUCCEEDED), term()) == []
    assert told(replace(running, epoch=2), term()) == []
    assert told(replace(running, epoch=0), term()) == [], "a version that did not know epochs wrote it"


def test_nothing_is_said_that_is_not_known(running: JobState) -> None:
    (event,) = told(running, term(TermRecord(epoch=1), last_write_s=0.0))
    assert event.message == (
        "second:20 at second:7000 (epoch 2) leads now, after the leader of epoch 1; workers go on without a leader"
    )
    assert set(event.fields) == {"leader", "address", "epoch", "former_epoch"}
    (alone,) = told(running, term(replace(FORMER, address="")))
    assert "after first:10 (epoch 1)" in alone.message


def test_nobody_led_for_no_less_than_nothing(running: JobState) -> None:
    (event,) = told(running, term(replace(FORMER, seen_s=5000.0)))
    assert event.fields["vacant_s"] == "0.000"


def test_workers_that_agents_ended_meanwhile_do_not_go_on(running: JobState) -> None:
    (event,) = told(running, term(since_s=1000.5 + ORPHAN_S + 1.0))
    assert event.message.endswith("agents save and end their workers after 10m00s without a leader")
    island = running.sole_island
    idle = replace(running.with_island(replace(island, slots=())), phase=JobPhase.QUEUED)
    (event,) = told(idle, term())
    assert event.message.endswith("nobody led for at most 12s")
