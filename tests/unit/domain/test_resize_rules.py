"""Which members a job should have next, one situation at a time.

Without it a drained node could be left too early, or a job fall below its minimum.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from trainctl.controller.domain.job_state import Cause
from trainctl.controller.domain.reconcile.resize import members_groups, newcomer_groups, next_resize
from trainctl.controller.domain.reconcile.work import Work
from trainctl.controller.domain.states import SlotState
from unit.domain.moment import Moment


def nodes(moment: Moment, **changes: int) -> Moment:
    job = moment.state.spec
    return moment.job(spec=replace(job, spec=replace(job.spec, nodes=replace(job.spec.nodes, **changes))))


def drained(moment: Moment, *which: int) -> Moment:
    for index in which:
        moment.agent(index, draining=True, cordoned=True)
    return moment


def due(moment: Moment, *, room_elsewhere: bool = False) -> Any:
    return next_resize(moment.work, room_elsewhere=room_elsewhere)


def node_of(work: Work, group: int) -> str:
    return work.slot(group * 2).node


def test_nothing_is_due_where_the_members_are_right(moment: Moment) -> None:
    assert members_groups(moment.work) == (0, 1)
    assert newcomer_groups(moment.work) == ()
    assert due(moment) is None


def test_newcomers_join_when_all_of_them_are_ready(moment: Moment) -> None:
    nodes(moment, max=3, target=3)
    assert due(moment.newcomer(SlotState.READY, SlotState.STARTING)) is None
    found = due(moment.slot(5, state=SlotState.READY))
    assert (found.cause, found.slots, found.moved) == (Cause.GROW, (0, 1, 2, 3, 4, 5), (4, 5))
    assert found.reason == "grow from 4 to 6 workers"


def test_one_that_is_not_wanted_does_not_join(moment: Moment) -> None:
    assert due(moment.newcomer(SlotState.READY, SlotState.READY)) is None


def test_one_on_its_way_out_is_no_newcomer(moment: Moment) -> None:
    moment.newcomer(SlotState.DRAINING, SlotState.DRAINING)
    assert newcomer_groups(moment.work) == ()


def test_the_last_leave_where_fewer_are_wanted(moment: Moment) -> None:
    found = due(nodes(moment, target=1))
    assert (found.cause, found.slots, found.moved) == (Cause.RESIZE, (0, 1), (2, 3))
    assert found.reason == "wanted are 1 node: 4 to 2 workers"


def test_a_drained_node_is_left(moment: Moment) -> None:
    work = drained(moment, 1).work
    group = next(g for g in (0, 1) if node_of(work, g) in work.draining)
    found = due(moment)
    assert found.moved == (2 * group, 2 * group + 1)
    assert found.reason == f"drain of {node_of(work, group)}: 4 to 2 workers"


def test_it_is_not_left_before_another_could_take_its_place(moment: Moment) -> None:
    drained(moment, 1)
    assert due(moment, room_elsewhere=True) is None
    assert due(moment.newcomer(SlotState.STARTING, SlotState.STARTING), room_elsewhere=True) is None


def test_who_comes_instead_and_who_leaves_change_places_at_once(moment: Moment) -> None:
    found = due(drained(moment, 1).newcomer(SlotState.READY, SlotState.READY), room_elsewhere=True)
    assert found.cause is Cause.RESIZE
    assert set(found.moved) > {4, 5}
    assert len(found.slots) == 4
    assert found.reason.endswith(": 4 workers")


def test_a_drain_never_goes_below_the_minimum(moment: Moment) -> None:
    assert due(nodes(drained(moment, 1), min=2)) is None


def test_of_two_drained_nodes_as_many_stay_as_are_needed(moment: Moment) -> None:
    found = due(drained(moment, 0, 1))
    assert len(found.slots) == 2, "one node is the least"


def test_somebody_who_holds_the_state_hands_it_over_first(moment: Moment) -> None:
    nodes(moment, min=1, target=1, max=3)
    found = due(drained(moment, 0, 1).newcomer(SlotState.READY, SlotState.READY))
    assert found.slots == (0, 1, 2, 3, 4, 5)
