"""Stopping all workers on request, one situation at a time.

Without it a paused job could lose the steps since its last checkpoint, or wait for a save for ever.
"""

from __future__ import annotations

from typing import Any

import pytest

from trainctl.controller.domain.events import JOB_HALT_GIVEN_UP
from trainctl.controller.domain.job_records import HaltKind, HaltRequest
from trainctl.controller.domain.job_state import Hold
from trainctl.controller.domain.reconcile.halt import halt
from trainctl.controller.domain.reconcile.work import Work
from trainctl.controller.domain.states import JobPhase, SlotState
from trainctl.core.records.step import Phase
from unit.domain.moment import NOW_S, Moment
from unit.domain.sample_reports import ref_of

HELD = 7
"""The step after which all wait."""


def wished(moment: Moment, **changes: Any) -> Work:
    wish = HaltRequest(kind=changes.pop("kind", HaltKind.PAUSE), requested_s=NOW_S - 1.0, **changes)
    work = moment.job(halt=wish).work
    halt(work)
    return work


def holding(moment: Moment) -> Moment:
    """All wait at a step boundary."""
    record = moment.state.sole_island.record
    assert record is not None
    moment.job(phase=JobPhase.PAUSING).island(hold=Hold.SAVE)
    for slot in range(4):
        moment.progress(slot, phase=Phase.HELD, step=HELD, generation=record.generation)
    return moment


def saved(moment: Moment, step: int) -> Moment:
    return moment.job(checkpoints=(ref_of(step),))


def stopping(work: Work) -> bool:
    wish = work.job.halt
    return wish is not None and wish.stopping and {slot.state for slot in work.slots()} == {SlotState.DRAINING}


def test_nothing_happens_without_a_wish(moment: Moment) -> None:
    work = moment.work
    assert not halt(work)
    assert work.job == moment.state


def test_a_paused_job_stays_so(moment: Moment) -> None:
    assert halt(moment.job(phase=JobPhase.PAUSED).work)


@pytest.mark.parametrize(
    ("kind", "phase"), [(HaltKind.PAUSE, JobPhase.PAUSING), (HaltKind.RESTART, JobPhase.RESTARTING)]
)
def test_first_everybody_waits_at_the_step_boundary(moment: Moment, kind: HaltKind, phase: JobPhase) -> None:
    work = wished(moment, kind=kind)
    assert (work.job.phase, work.island.hold) == (phase, Hold.SAVE)
    assert not stopping(work)


def test_nobody_is_told_to_wait_before_all_train(moment: Moment) -> None:
    assert wished(moment.island(entered=False)).island.hold is Hold.NONE


def test_nobody_is_told_to_wait_while_a_member_is_gone(moment: Moment) -> None:
    work = wished(moment.slot(1, state=SlotState.EMPTY))
    assert work.island.hold is Hold.NONE
    assert work.job.phase is JobPhase.RUNNING


def test_what_need_not_be_saved_is_stopped_at_once(moment: Moment) -> None:
    assert stopping(wished(moment, saves=False))


def test_workers_without_state_are_stopped_at_once(moment: Moment) -> None:
    assert stopping(wished(moment.island(record=None)))


def test_they_stop_when_the_step_that_they_wait_after_is_saved(moment: Moment) -> None:
    assert stopping(wished(saved(holding(moment), HELD)))


def test_a_job_that_resumed_there_has_it_saved_already(moment: Moment) -> None:
    ref = saved(holding(moment), HELD).state.checkpoints[-1]
    moment.job(checkpoints=(), resume=ref)
    assert stopping(wished(moment))


def test_an_older_checkpoint_is_not_enough(moment: Moment) -> None:
    work = wished(saved(holding(moment), HELD - 1))
    assert not stopping(work)
    assert work.job.halt is not None
    assert work.job.halt.held_s == NOW_S, "from now on the report is waited for"


@pytest.mark.parametrize(("over_s", "given_up"), [(-0.1, False), (0.1, True)])
def test_a_report_that_does_not_come_calls_it_off(moment: Moment, over_s: float, given_up: bool) -> None:
    held_s = NOW_S - moment.work.timeouts.prepare_s - over_s
    work = wished(holding(moment), held_s=held_s)
    assert (work.job.halt is None) is given_up
    assert [event.type for event in work.events] == [JOB_HALT_GIVEN_UP] * given_up
    assert not given_up or "was not reported" in work.events[0].message


def test_a_save_that_failed_calls_it_off_at_once(moment: Moment) -> None:
    work = wished(holding(moment), failed_step=HELD)
    assert work.job.halt is None
    assert work.events[0].message == (
        f"the pause is called off, the job goes on after step {HELD}: the checkpoint of step {HELD} could not be saved"
    )


def test_an_older_save_that_failed_means_nothing(moment: Moment) -> None:
    assert wished(holding(moment), failed_step=HELD - 1).job.halt is not None


def test_who_allows_the_loss_is_stopped_all_the_same(moment: Moment) -> None:
    assert stopping(wished(holding(moment), failed_step=HELD, allow_loss=True))


def test_it_is_paused_when_the_last_worker_is_gone(moment: Moment) -> None:
    for slot in range(4):
        moment.slot(slot, state=SlotState.EMPTY if slot else SlotState.DRAINING)
    moment.job(phase=JobPhase.PAUSING)
    assert wished(moment, stopping=True).job.phase is JobPhase.PAUSING
    work = wished(moment.slot(0, state=SlotState.EMPTY), stopping=True)
    assert (work.job.phase, work.job.halt, work.island.hold) == (JobPhase.PAUSED, None, Hold.NONE)
