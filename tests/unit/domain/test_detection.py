"""What is concluded from one moment's observations, rule by rule.

Without it a worker could be given up too early, too late, or for a reason that nobody can follow.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from trainctl.controller.domain.reconcile.detect import find_faults, verdict_due
from trainctl.controller.domain.reconcile.fault import FaultKind
from trainctl.controller.domain.states import SlotState
from trainctl.core.records.worker import WorkerError, WorkerPhase
from unit.domain.moment import LOST_S, NOW_S, Moment


def test_an_agent_is_lost_when_it_was_silent_for_longer_than_the_limit(moment: Moment) -> None:
    assert moment.agent(0, last_heard_age_s=LOST_S).faults == ()
    slots = moment.agent(0, last_heard_age_s=LOST_S + 0.5).faults
    assert [fault.kind for fault in slots] == [FaultKind.AGENT_LOST] * 2
    assert {fault.at_s for fault in slots} == {NOW_S - LOST_S - 0.5}, "since it was heard last"
    assert "is silent for 3.5 s (limit 3 s)" in slots[0].reason


def test_an_agent_whose_process_ended_is_lost_at_once(moment: Moment) -> None:
    found = moment.agent(1, process_exited=True).faults
    assert [(fault.kind, fault.at_s) for fault in found] == [(FaultKind.AGENT_LOST, NOW_S)] * 2
    assert found[0].reason.endswith("exited")


def test_a_newer_life_of_the_agent_ends_the_former(moment: Moment) -> None:
    moment.agents.append(replace(moment.agents[0], agent_incarnation=10**6, workers=()))
    assert {fault.reason.rpartition(" was ")[2] for fault in moment.faults} == {"started anew"}


def test_an_agent_that_nobody_knows_is_lost_once_the_controller_has_settled(moment: Moment) -> None:
    del moment.agents[0]
    assert replace(moment, settled=False).faults == ()
    assert {fault.reason.rpartition(" is ")[2] for fault in moment.faults} == {"unknown"}


def test_silence_means_nothing_before_the_controller_has_settled(moment: Moment) -> None:
    moment.settled = False
    assert moment.agent(0, last_heard_age_s=100.0).faults == ()


@pytest.mark.parametrize(
    ("code", "words"),
    [(-9, "was ended by SIGKILL on"), (-11, "was ended by SIGSEGV on"), (3, "ended with exit code 3 on")],
)
def test_an_exit_is_dated_and_named(moment: Moment, code: int, words: str) -> None:
    found = moment.worker(1, phase=WorkerPhase.EXITED, exit_code=code, exited_age_s=0.75).only
    assert (found.slot, found.kind, found.exit_code, found.at_s) == (1, FaultKind.EXITED, code, NOW_S - 0.75)
    assert found.reason.startswith(words)


def test_an_exit_in_the_future_happened_now(moment: Moment) -> None:
    assert moment.worker(1, phase=WorkerPhase.EXITED, exit_code=1, exited_age_s=-2.0).only.at_s == NOW_S


@pytest.mark.parametrize(
    ("step", "when"), [(7, "raised ValueError in step 7 on"), (1, "in step 1 on"), (0, "before its first step on")]
)
def test_an_exception_is_told_with_its_step(moment: Moment, step: int, when: str) -> None:
    error = WorkerError(type="ValueError", message="no", step=step)
    found = moment.worker(2, phase=WorkerPhase.EXITED, exit_code=1, error=error).only
    assert when in found.reason
    assert found.error == error


def test_a_worker_that_its_agent_does_not_know_any_more_is_gone_after_a_while(moment: Moment) -> None:
    moment.forgets(3)
    work = moment.work
    assert find_faults(work) == ()
    assert work.slot(3).missing_since_s == NOW_S, "noted, and waited for"
    moment.slot(3, missing_since_s=NOW_S - LOST_S - 0.1)
    assert (moment.only.kind, moment.only.at_s) == (FaultKind.EXITED, NOW_S - LOST_S - 0.1)
    assert "no longer known to its agent" in moment.only.reason
    assert moment.agent(1, connected=False).faults == (), "it cannot be asked"


def test_a_worker_that_was_never_started_is_stuck_after_the_boot_limit(moment: Moment) -> None:
    boot_s = moment.work.timeouts.boot_s
    moment.forgets(3).slot(3, state=SlotState.STARTING, pid=0, since_s=NOW_S - boot_s + 1.0)
    assert moment.faults == ()
    moment.slot(3, since_s=NOW_S - boot_s - 1.0)
    assert (moment.only.kind, moment.only.at_s) == (FaultKind.STUCK, NOW_S - boot_s - 1.0)
    assert "was not started by its agent" in moment.only.reason


def test_a_worker_without_a_sign_of_life_is_frozen_since_its_last(moment: Moment) -> None:
    floor_s = moment.work.timeouts.hang_floor_s
    found = moment.progress(0, alive_age_s=20 * floor_s).only
    assert (found.kind, found.frozen, found.at_s) == (FaultKind.STUCK, True, NOW_S - 20 * floor_s)


def test_a_worker_that_boots_for_too_long_is_stuck_but_not_frozen(moment: Moment) -> None:
    boot_s = moment.work.timeouts.boot_s
    found = moment.slot(0, state=SlotState.STARTING, since_s=NOW_S - boot_s - 1.0).only
    assert (found.kind, found.frozen, found.at_s) == (FaultKind.STUCK, False, NOW_S - boot_s - 1.0)
    assert "was not ready within" in found.reason


@pytest.mark.parametrize(("silent_s", "due"), [(2.0, False), (2.9, True), (LOST_S, True), (LOST_S + 0.1, False)])
def test_others_that_are_about_to_be_lost_are_waited_for(moment: Moment, silent_s: float, due: bool) -> None:
    moment.agent(1, last_heard_age_s=silent_s)
    assert verdict_due(moment.work) is due
    moment.settled = False
    assert not verdict_due(moment.work)


def test_nobody_waits_for_an_agent_whose_process_ended(moment: Moment) -> None:
    assert not verdict_due(moment.agent(1, last_heard_age_s=2.9, process_exited=True).work)
