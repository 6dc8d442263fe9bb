"""How a job ends, and how fast its workers have to go.

Without it a job could be called a success that saved or learned nothing, or a stopping worker be killed too early.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from trainctl.controller.domain.conditions import CHECKPOINT_STALE, with_condition
from trainctl.controller.domain.job_records import CancelRequest, JobFailure
from trainctl.controller.domain.reconcile.stop import STOP_GRACE_S, grace_s, mind_draining, stop
from trainctl.controller.domain.reconcile.work import Work
from trainctl.controller.domain.states import JobPhase, SlotState
from unit.domain.moment import NOW_S, Moment
from unit.domain.sample_reports import ref_of


def ended(moment: Moment, phase: JobPhase, **changes: Any) -> Work:
    """All workers are gone."""
    for slot in range(4):
        moment.slot(slot, state=SlotState.EMPTY, pid=0)
    work = moment.job(phase=phase, **changes).work
    stop(work)
    return work


def test_nobody_has_a_place_when_all_is_over(moment: Moment) -> None:
    work = ended(moment, JobPhase.COMPLETING)
    assert work.job.phase is JobPhase.SUCCEEDED
    assert not any(slot.bound for slot in work.slots())


def test_it_does_not_end_while_a_worker_is_there(moment: Moment) -> None:
    work = moment.job(phase=JobPhase.COMPLETING).work
    stop(work)
    assert work.job.phase is JobPhase.COMPLETING
    assert {slot.state for slot in work.slots()} == {SlotState.DRAINING}
    assert all(slot.bound for slot in work.slots())


def test_a_failing_job_kills(moment: Moment) -> None:
    work = moment.job(phase=JobPhase.FAILING).work
    stop(work)
    assert {slot.state for slot in work.slots()} == {SlotState.CONDEMNED}


def test_success_tells_steps_loss_and_what_was_skipped(moment: Moment) -> None:
    progress = replace(moment.state.progress, loss=2.34567, skipped=3)
    work = ended(moment, JobPhase.COMPLETING, progress=progress)
    assert work.job.message == "job sim finished 400 steps (3 of them skipped), last loss 2.3457"


def test_success_without_figures_is_short(moment: Moment) -> None:
    progress = replace(moment.state.progress, loss=None, skipped=0)
    assert ended(moment, JobPhase.COMPLETING, progress=progress).job.message == "job sim finished 400 steps"


@pytest.mark.parametrize(("step", "phase"), [(399, JobPhase.FAILED), (400, JobPhase.SUCCEEDED)])
def test_a_job_whose_last_state_was_not_saved_failed(moment: Moment, step: int, phase: JobPhase) -> None:
    moment.state = with_condition(moment.state, CHECKPOINT_STALE, True, 1.0, reason="Failed", message="disk full")
    work = ended(moment, JobPhase.COMPLETING, checkpoints=(ref_of(step),))
    assert work.job.phase is phase
    assert phase is JobPhase.SUCCEEDED or "of step 399: mem://399 (disk full)" in work.job.message


def test_a_job_that_never_saved_because_nothing_failed_is_a_success(moment: Moment) -> None:
    assert ended(moment, JobPhase.COMPLETING, checkpoints=()).job.phase is JobPhase.SUCCEEDED


def test_a_job_that_could_never_save_failed(moment: Moment) -> None:
    moment.state = with_condition(moment.state, CHECKPOINT_STALE, True, 1.0, reason="Failed", message="disk full")
    work = ended(moment, JobPhase.COMPLETING, checkpoints=())
    assert work.job.phase is JobPhase.FAILED
    assert "no checkpoint was ever saved (disk full)" in work.job.message


@pytest.mark.parametrize(("skipped", "phase"), [(399, JobPhase.SUCCEEDED), (400, JobPhase.FAILED)])
def test_a_job_that_skipped_every_step_failed(moment: Moment, skipped: int, phase: JobPhase) -> None:
    progress = replace(moment.state.progress, skipped=skipped)
    assert ended(moment, JobPhase.COMPLETING, progress=progress).job.phase is phase


def test_a_cancelled_job_names_its_newest_checkpoint(moment: Moment) -> None:
    work = ended(moment, JobPhase.CANCELLING, checkpoints=(ref_of(5), ref_of(9)))
    assert work.job.message == "job sim was cancelled; its last checkpoint is mem://9 at step 9"
    assert work.job.phase is JobPhase.CANCELLED


def test_a_cancelled_job_says_that_nothing_was_saved(moment: Moment) -> None:
    assert ended(moment, JobPhase.CANCELLING).job.message == "job sim was cancelled; no checkpoint was saved"


def test_a_failed_job_says_why(moment: Moment) -> None:
    failure = JobFailure(code="USER_EXCEPTION", message="worker 1 raised ValueError")
    work = ended(moment, JobPhase.FAILING, failure=failure, reason="UserException")
    assert (work.job.phase, work.job.reason, work.job.message) == (
        JobPhase.FAILED,
        "UserException",
        "worker 1 raised ValueError",
    )


def test_a_worker_has_the_grace_of_the_cancellation_to_end(moment: Moment) -> None:
    assert grace_s(moment.work) == STOP_GRACE_S
    assert grace_s(moment.job(cancel=CancelRequest(requested_s=1.0, grace_s=77.0)).work) == 77.0


@pytest.mark.parametrize(("over_s", "state"), [(-0.1, SlotState.DRAINING), (0.1, SlotState.CONDEMNED)])
def test_after_grace_and_the_time_to_notice_it_is_killed(moment: Moment, over_s: float, state: SlotState) -> None:
    limit_s = STOP_GRACE_S + moment.work.timeouts.prepare_s
    moment.slot(2, state=SlotState.DRAINING, since_s=NOW_S - limit_s - over_s)
    work = moment.work
    mind_draining(work)
    assert work.slot(2).state is state
    assert {work.slot(other).state for other in (0, 1, 3)} == {SlotState.ACTIVE}


def test_nobody_is_killed_before_the_controller_has_settled(moment: Moment) -> None:
    moment.settled = False
    work = moment.slot(2, state=SlotState.DRAINING, since_s=0.0).work
    mind_draining(work)
    assert work.slot(2).state is SlotState.DRAINING
