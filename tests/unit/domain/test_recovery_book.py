"""The record of each recovery: when it began, who was left, how it ended.

Without it the answer to "why was my job down" could be wrong.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from trainctl.controller.domain.job_records import Recovery, RecoveryCandidate, RecoveryMarks
from trainctl.controller.domain.reconcile.fault import Fault, FaultKind
from trainctl.controller.domain.reconcile.recoveries import (
    abandon_recovery,
    begin_recovery,
    begin_resize,
    is_new_step,
    update_recovery,
)
from trainctl.controller.domain.states import SlotState
from unit.domain.moment import NOW_S, Moment


def killed(slot: int, at_s: float = NOW_S - 0.5) -> Fault:
    return Fault(slot=slot, kind=FaultKind.EXITED, reason="was ended by SIGKILL on a", at_s=at_s, exit_code=-9)


def test_it_begins_with_the_fault_and_counts(moment: Moment) -> None:
    work = moment.work
    begin_recovery(work, [killed(1)])
    assert work.job.recovery_count == moment.state.recovery_count + 1
    (event,) = work.events
    assert event.message == "worker 1 was ended by SIGKILL on a; noticed after 0.50 s, 3 workers left alive"
    latest = work.job.recoveries[-1]
    assert (latest.started_s, latest.slots, latest.planned) == (NOW_S - 0.5, (1,), False)


def test_survivors_are_the_members_that_live_and_were_not_hit(moment: Moment) -> None:
    lives = [slot.incarnation for slot in moment.state.sole_island.slots]
    work = moment.slot(2, state=SlotState.EMPTY).slot(3, incarnation=10**6).work
    begin_recovery(work, [killed(1)])
    assert work.island.marks is not None
    assert work.island.marks.survivors == (lives[0],), "slot 3 has a newcomer, which is no member"


def test_a_fault_is_not_dated_before_the_job_nor_after_now(moment: Moment) -> None:
    work = moment.work
    begin_recovery(work, [killed(1, at_s=-10.0)])
    assert work.job.recoveries[-1].started_s == moment.state.submitted_s
    work = moment.work
    begin_recovery(work, [killed(1, at_s=NOW_S + 10.0)])
    assert work.job.recoveries[-1].started_s == NOW_S


def test_a_resize_is_recorded_but_is_no_failure(moment: Moment) -> None:
    work = moment.work
    begin_resize(work, "grow", [2, 3])
    assert work.job.recovery_count == moment.state.recovery_count
    assert work.job.recoveries[-1].planned
    before = work.job
    begin_resize(work, "grow again", [4])
    assert work.job == before, "one at a time"


def test_no_resize_is_recorded_before_the_first_generation(moment: Moment) -> None:
    work = moment.island(record=None).work
    begin_resize(work, "grow", [2])
    assert work.island.marks is None


def open_since(moment: Moment, detected_s: float, *, rung: str = "", planned: bool = False) -> Moment:
    new = Recovery(generation=2, fault="new", started_s=detected_s, rung=rung, planned=planned)
    book = (Recovery(generation=1, fault="old"), new)
    marks = RecoveryMarks(faulted_s=detected_s, detected_s=detected_s)
    return moment.job(recoveries=book, recovery_count=5).island(marks=marks)


@pytest.mark.parametrize(("planned", "count"), [(False, 4), (True, 5)])
def test_one_that_was_only_opened_in_this_pass_never_began(moment: Moment, planned: bool, count: int) -> None:
    work = open_since(moment, NOW_S, planned=planned).work
    abandon_recovery(work, "never mind")
    assert [one.fault for one in work.job.recoveries] == ["old"]
    assert (work.job.recovery_count, work.island.marks) == (count, None)


@pytest.mark.parametrize(("detected_s", "rung"), [(NOW_S - 4.0, ""), (NOW_S, "peer")])
def test_one_that_had_begun_is_closed_with_the_reason(moment: Moment, detected_s: float, rung: str) -> None:
    work = open_since(moment, detected_s, rung=rung).work
    abandon_recovery(work, "the job was paused")
    closed = work.job.recoveries[-1]
    assert (closed.rung, closed.reason, closed.phases_s) == (
        rung or "none",
        "the job was paused",
        {"total": NOW_S - detected_s},
    )
    assert (work.job.recovery_count, work.island.marks) == (5, None)


def test_what_has_no_recovery_open_is_left_alone(moment: Moment) -> None:
    work = moment.work
    abandon_recovery(work, "never mind")
    update_recovery(work, rung="peer")
    assert work.job == moment.state


def test_only_the_newest_is_updated(moment: Moment) -> None:
    work = open_since(moment, NOW_S - 1.0).work
    update_recovery(work, rung="peer")
    assert [one.rung for one in work.job.recoveries] == ["", "peer"]


def test_the_first_step_beyond_the_target_of_the_generation_ends_it(moment: Moment) -> None:
    record = moment.state.sole_island.record
    assert record is not None
    record = replace(record, target_step=7)
    assert is_new_step(record, generation=record.generation, step=8)
    assert not is_new_step(record, generation=record.generation, step=7)
    assert not is_new_step(record, generation=record.generation - 1, step=8)


def test_a_fault_during_a_recovery_is_part_of_it(moment: Moment) -> None:
    work = open_since(moment, NOW_S - 1.0).work
    begin_recovery(work, [killed(3), killed(1)])
    latest = work.job.recoveries[-1]
    assert latest.fault.startswith("new; then worker 3 was ended by SIGKILL on a; worker 1 was")
    assert (latest.slots, latest.started_s, work.job.recovery_count) == ((1, 3), NOW_S - 1.0, 5)


def test_a_resize_that_a_fault_meets_counts_as_a_failure(moment: Moment) -> None:
    work = open_since(moment, NOW_S - 1.0, planned=True).work
    begin_recovery(work, [killed(3)])
    assert not work.job.recoveries[-1].planned
    assert work.job.recovery_count == 6


def test_its_times_begin_anew_with_each_fault(moment: Moment) -> None:
    moment = open_since(moment, NOW_S - 1.0)
    marks = moment.state.sole_island.marks
    assert marks is not None
    work = moment.island(marks=replace(marks, stopped_s=1.0, booted_s=2.0, committed_s=3.0)).work
    begin_recovery(work, [killed(3)])
    found = work.island.marks
    assert found is not None
    assert (found.stopped_s, found.booted_s, found.committed_s) == (0.0, 0.0, 0.0)
    assert found.detected_s == NOW_S - 1.0
    assert len(found.survivors) == 3


def test_only_the_newest_recoveries_keep_their_candidates(moment: Moment) -> None:
    weighed = (RecoveryCandidate(rung="peer", eligible=True, cost_s=1.0, reason="r"),)
    book = tuple(Recovery(generation=n, fault=f"f{n}", candidates=weighed) for n in range(10))
    work = moment.job(recoveries=book).work
    begin_recovery(work, [killed(1)])
    kept = [bool(one.candidates) for one in work.job.recoveries]
    assert kept == [False] * 2 + [True] * 8 + [False], "the new one has none yet"


def test_what_it_tells_of_faults_has_an_end(moment: Moment) -> None:
    work = open_since(moment, NOW_S - 1.0).work
    for _ in range(40):
        begin_recovery(work, [killed(1)])
    assert 600 < len(work.job.recoveries[-1].fault) < 1300
