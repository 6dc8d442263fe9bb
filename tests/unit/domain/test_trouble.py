"""Trouble although every member lives. Without it a group that lost its meeting place would wait for ever."""

from __future__ import annotations

from dataclasses import replace

import pytest

from trainctl.controller.domain.goodput import Bucket, totals_s
from trainctl.controller.domain.reconcile.trouble import mind_trouble
from trainctl.core.records.step import Phase
from unit.domain.moment import LOST_S, NOW_S, Moment


def interrupted(moment: Moment, age_s: float, *, behind: int = 0) -> Moment:
    record = moment.state.sole_island.record
    assert record is not None
    return moment.progress(2, phase=Phase.INTERRUPTED, phase_age_s=age_s, generation=record.generation - behind)


def test_all_is_well(moment: Moment) -> None:
    work = moment.work
    assert mind_trouble(work) == ""
    assert work.job == moment.state


def test_a_member_that_waits_for_too_long_after_an_interruption_is_told(moment: Moment) -> None:
    suspect_s = moment.work.timeouts.suspect_s
    assert mind_trouble(interrupted(moment, suspect_s).work) == ""
    work = interrupted(moment, suspect_s + 0.5).work
    found = mind_trouble(work)
    assert found.startswith("worker 2 was interrupted in generation 1")
    assert "though nobody is lost" in found
    assert work.island.marks is not None
    assert work.job.recoveries[-1].slots == (2,)


def test_one_of_an_earlier_generation_means_nothing(moment: Moment) -> None:
    assert mind_trouble(interrupted(moment, 100.0, behind=1).work) == ""


def test_nothing_is_concluded_before_the_controller_has_settled(moment: Moment) -> None:
    moment.settled = False
    assert mind_trouble(interrupted(moment, 100.0).work) == ""


def without_store(moment: Moment) -> Moment:
    for index in range(2):
        moment.agent(index, store_address="elsewhere:1")
    return moment


def test_the_meeting_place_matters_until_all_have_met(moment: Moment) -> None:
    without_store(moment)
    assert mind_trouble(moment.work) == ""
    found = mind_trouble(moment.island(entered=False).work)
    record = moment.state.sole_island.record
    assert record is not None
    assert found == f"worker 0 lost the collective store at {record.store_address}"


@pytest.mark.parametrize(
    ("age_s", "exited", "there"),
    [(0.1, False, True), (LOST_S, False, True), (LOST_S + 0.1, False, False), (0.1, True, False)],
)
def test_it_is_there_while_its_agent_is(moment: Moment, age_s: float, exited: bool, there: bool) -> None:
    record = moment.state.sole_island.record
    assert record is not None
    moment.island(entered=False)
    for index, agent in enumerate(moment.agents):
        if agent.store_address == record.store_address:
            moment.agents[index] = replace(agent, last_heard_age_s=age_s, process_exited=exited)
    assert (mind_trouble(moment.work) == "") is there


def test_what_was_trained_is_not_booked_as_a_hang(moment: Moment) -> None:
    work = interrupted(moment, 50.0).work
    mind_trouble(work)
    assert totals_s(work.job.goodput, NOW_S).get(Bucket.HANG, 0.0) == 0.0
