"""The job's phase with its event and its attempt. Without it the history could not explain what happened when."""

from __future__ import annotations

from dataclasses import replace

import pytest

from trainctl.controller.domain.events import JOB_WAITING
from trainctl.controller.domain.job_records import JobFailure
from trainctl.controller.domain.job_state import JobState
from trainctl.controller.domain.reconcile.lifecycle import attempt_restoring, fail_job, move_job, set_phase, wait_in
from trainctl.controller.domain.states import AttemptPhase, JobPhase, SlotState, UnknownTransitionError
from unit.domain.moment import NOW_S, Moment


def moved(state: JobState, to: JobPhase) -> JobState:
    return move_job(state, to, NOW_S, reason="R", message="m")[0]


def at(moment: Moment, phase: JobPhase, attempt: AttemptPhase) -> JobState:
    return replace(moment.state, phase=phase, attempt=3, attempt_phase=attempt, started_s=0.0, ended_s=0.0)


@pytest.mark.parametrize(
    ("phase", "attempt", "to", "after"),
    [
        (JobPhase.QUEUED, AttemptPhase.SUPERSEDED, JobPhase.ADMITTED, AttemptPhase.CREATED),
        (JobPhase.ADMITTED, AttemptPhase.CREATED, JobPhase.STARTING, AttemptPhase.BOOTING),
        (JobPhase.STARTING, AttemptPhase.RESTORING, JobPhase.RUNNING, AttemptPhase.TRAINING),
        (JobPhase.COMPLETING, AttemptPhase.TRAINING, JobPhase.SUCCEEDED, AttemptPhase.SUCCEEDED),
        (JobPhase.FAILING, AttemptPhase.TRAINING, JobPhase.FAILED, AttemptPhase.FAILED),
        (JobPhase.CANCELLING, AttemptPhase.BOOTING, JobPhase.CANCELLED, AttemptPhase.CANCELLED),
        (JobPhase.PAUSING, AttemptPhase.TRAINING, JobPhase.PAUSED, AttemptPhase.SUPERSEDED),
        (JobPhase.FAILING, AttemptPhase.SUPERSEDED, JobPhase.FAILED, AttemptPhase.SUPERSEDED),
    ],
)
def test_the_attempt_goes_along(
    moment: Moment, phase: JobPhase, attempt: AttemptPhase, to: JobPhase, after: AttemptPhase
) -> None:
    found = moved(at(moment, phase, attempt), to)
    assert (found.phase, found.attempt_phase) == (to, after)
    assert found.attempt == 3 + (to is JobPhase.ADMITTED)


def test_a_job_starts_once_and_ends_once(moment: Moment) -> None:
    running = moved(at(moment, JobPhase.STARTING, AttemptPhase.RESTORING), JobPhase.RUNNING)
    assert (running.started_s, running.ended_s) == (NOW_S, 0.0)
    again = moved(replace(at(moment, JobPhase.STARTING, AttemptPhase.RESTORING), started_s=7.0), JobPhase.RUNNING)
    assert again.started_s == 7.0
    ended = moved(at(moment, JobPhase.COMPLETING, AttemptPhase.TRAINING), JobPhase.SUCCEEDED)
    assert ended.ended_s == NOW_S


def test_its_event_says_from_where_to_where_and_after_how_long(moment: Moment) -> None:
    before = replace(at(moment, JobPhase.COMPLETING, AttemptPhase.TRAINING), phase_since_s=NOW_S - 65.0)
    found, (event,) = move_job(before, JobPhase.SUCCEEDED, NOW_S, reason="R", message="m")
    assert event.fields == {"from": "COMPLETING", "to": "SUCCEEDED", "after": "1m05s"}
    assert (event.type, event.reason, event.message) == ("job.succeeded", "R", "m")
    assert found.phase_since_s == NOW_S


def test_there_is_no_way_back_from_the_end(moment: Moment) -> None:
    with pytest.raises(UnknownTransitionError):
        moved(at(moment, JobPhase.SUCCEEDED, AttemptPhase.SUCCEEDED), JobPhase.RUNNING)


def test_a_phase_is_not_entered_twice(moment: Moment) -> None:
    work = moment.work
    set_phase(work, JobPhase.RUNNING, "Other", "other")
    assert (work.job, work.events) == (moment.state, [])


def test_a_reason_to_wait_is_told_once(moment: Moment) -> None:
    work = moment.work
    wait_in(work, "NoRoom", "no room")
    wait_in(work, "NoRoom", "still no room")
    assert [(event.type, event.message) for event in work.events] == [(JOB_WAITING, "no room")]
    assert work.job.message == "no room"


@pytest.mark.parametrize(
    ("before", "after"),
    [(AttemptPhase.BOOTING, AttemptPhase.RESTORING), (AttemptPhase.TRAINING, AttemptPhase.TRAINING)],
)
def test_the_first_generation_restores(moment: Moment, before: AttemptPhase, after: AttemptPhase) -> None:
    assert attempt_restoring(replace(moment.state, attempt_phase=before)).attempt_phase is after


def test_a_failed_job_kills_every_worker_and_keeps_the_first_failure(moment: Moment) -> None:
    work = moment.slot(1, state=SlotState.EMPTY).work
    fail_job(work, JobFailure(code="USER_EXCEPTION", message="first"))
    fail_job(work, JobFailure(code="OTHER", message="second"))
    assert (work.job.phase, work.job.reason, work.job.message) == (JobPhase.FAILING, "UserException", "first")
    assert work.job.failure is not None
    assert work.job.failure.message == "first"
    assert [slot.state for slot in work.slots()] == [
        SlotState.CONDEMNED,
        SlotState.EMPTY,
        SlotState.CONDEMNED,
        SlotState.CONDEMNED,
    ]


@pytest.mark.parametrize("phase", [JobPhase.CANCELLING, JobPhase.SUCCEEDED])
def test_what_ends_already_does_not_fail(moment: Moment, phase: JobPhase) -> None:
    work = moment.job(phase=phase).work
    fail_job(work, JobFailure(code="OTHER", message="late"))
    assert (work.job.phase, work.job.failure) == (phase, None)
