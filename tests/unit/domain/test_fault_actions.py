"""What is done about faults. Without it a newcomer's failure could charge the job, or a lost node keep its slots."""

from __future__ import annotations

import pytest

from trainctl.controller.domain.events import AGENT_LOST, WORKER_CONDEMNED, WORKER_EXITED, WORKER_LOST
from trainctl.controller.domain.goodput import Bucket, totals_s
from trainctl.controller.domain.reconcile.fault import Fault, FaultKind
from trainctl.controller.domain.reconcile.faults import apply_faults
from trainctl.controller.domain.reconcile.work import Work
from trainctl.controller.domain.states import JobPhase, SlotState
from unit.domain.moment import NOW_S, Moment


def happened(slot: int, kind: FaultKind = FaultKind.EXITED, *, ago_s: float = 0.5, frozen: bool = False) -> Fault:
    code = -9 if kind is FaultKind.EXITED else None
    return Fault(slot=slot, kind=kind, reason="its reason", at_s=NOW_S - ago_s, exit_code=code, frozen=frozen)


def after(moment: Moment, *faults: Fault) -> Work:
    work = moment.work
    apply_faults(work, faults)
    return work


def types(work: Work) -> list[str]:
    return [event.type for event in work.events]


def test_an_exit_empties_the_slot_and_keeps_its_place(moment: Moment) -> None:
    work = after(moment, happened(1))
    slot = work.slot(1)
    assert (slot.state, slot.pid, slot.bound) == (SlotState.EMPTY, 0, True)
    assert WORKER_EXITED in types(work)
    assert work.job.recoveries[-1].slots == (1,)


def test_who_is_lost_with_its_agent_has_no_place_any_more(moment: Moment) -> None:
    work = after(moment, happened(2, FaultKind.AGENT_LOST), happened(3, FaultKind.AGENT_LOST))
    assert not work.slot(2).bound
    assert not work.slot(3).bound
    assert work.slot(0).bound
    assert types(work).count(AGENT_LOST) == 1, "once an agent"
    assert types(work).count(WORKER_LOST) == 2
    told = next(event for event in work.events if event.type == AGENT_LOST)
    assert told.message == "reason; workers 2 and 3 are lost with it"


def test_agents_are_told_apart(moment: Moment) -> None:
    work = after(moment, happened(0, FaultKind.AGENT_LOST), happened(3, FaultKind.AGENT_LOST))
    assert types(work).count(AGENT_LOST) == 2


def test_a_stuck_worker_is_condemned_and_stays_where_it_is(moment: Moment) -> None:
    work = after(moment, happened(1, FaultKind.STUCK))
    assert (work.slot(1).state, work.slot(1).bound) == (SlotState.CONDEMNED, True)
    assert WORKER_CONDEMNED in types(work)


@pytest.mark.parametrize(("frozen", "hung_s"), [(True, 2.0), (False, 0.0)])
def test_the_time_of_a_frozen_worker_is_a_hang(moment: Moment, frozen: bool, hung_s: float) -> None:
    work = after(moment, happened(1, FaultKind.STUCK, ago_s=2.0, frozen=frozen))
    assert totals_s(work.job.goodput, NOW_S).get(Bucket.HANG, 0.0) == pytest.approx(hung_s)


def test_a_newcomers_failure_costs_nothing_and_its_node_rests(moment: Moment) -> None:
    work = after(moment.newcomer(SlotState.STARTING, SlotState.READY), happened(4))
    assert work.island.marks is None, "no recovery"
    assert work.job.recovery_count == moment.state.recovery_count
    assert work.slot(5).state is SlotState.DRAINING
    assert work.slot(5).reason == "new worker 4 on its node failed"
    assert not work.slot(4).bound
    assert {work.slot(n).state for n in range(4)} == {SlotState.ACTIVE}, "the others train on"
    assert work.island.grow_after_s == NOW_S + max(10.0, work.timeouts.replacement_wait_s)


def test_the_end_of_one_on_its_way_out_is_no_news(moment: Moment) -> None:
    work = after(moment.slot(1, state=SlotState.DRAINING), happened(1))
    assert work.island.marks is None
    assert (work.slot(1).state, work.slot(1).bound) == (SlotState.EMPTY, False)
    (event,) = work.events
    assert (event.type, event.reason) == (WORKER_EXITED, "Expected")


def test_of_a_restart_its_slot_keeps_the_place(moment: Moment) -> None:
    work = after(moment.job(phase=JobPhase.RESTARTING).slot(1, state=SlotState.DRAINING), happened(1))
    assert work.slot(1).bound


@pytest.mark.parametrize("phase", [JobPhase.CANCELLING, JobPhase.COMPLETING, JobPhase.FAILING])
def test_an_ending_job_recovers_from_nothing(moment: Moment, phase: JobPhase) -> None:
    work = after(moment.job(phase=phase), happened(1))
    assert work.island.marks is None
    assert not work.slot(1).bound


def test_an_empty_slot_on_a_lost_agent_loses_its_place_in_silence(moment: Moment) -> None:
    work = after(moment.slot(1, state=SlotState.EMPTY), happened(1, FaultKind.AGENT_LOST))
    assert not work.slot(1).bound
    assert types(work) == [AGENT_LOST]
    assert work.island.marks is None
