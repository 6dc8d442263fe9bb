"""When it is time to save: by a clock that no failure begins anew."""

from __future__ import annotations

import pytest

from trainctl.core.records.spec import CheckpointSpec
from trainctl.core.system.faults import FaultPlan
from trainctl.parallel.plan.vote import VoteFlag
from trainctl.parallel.session.checkpoints import Checkpoints
from trainctl.parallel.session.save_clock import SaveClock

WAITS = VoteFlag.SAVE_BY_TIME
DUE = WAITS | VoteFlag.SAVE_NOW


class Hand:
    """A clock that is moved by hand."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def hand() -> Hand:
    return Hand()


@pytest.fixture
def clock(hand: Hand) -> SaveClock:
    return SaveClock(hand)


def test_it_is_over_that_long_after_the_last_save_was_begun(hand: Hand, clock: SaveClock) -> None:
    assert clock.flags(30.0) == WAITS
    hand.now_s += 30.0
    assert clock.flags(30.0) == DUE
    clock.begun(7)
    assert clock.flags(30.0) == WAITS
    hand.now_s += 29.0
    assert (clock.flags(30.0), clock.flags(29.0)) == (WAITS, DUE), "another interval counts from the same moment"


@pytest.mark.parametrize("interval_s", [0.0, -1.0])
def test_who_was_told_nothing_says_nothing(hand: Hand, clock: SaveClock, interval_s: float) -> None:
    hand.now_s += 1e6
    assert clock.flags(interval_s) is VoteFlag.NONE


def test_a_failure_begins_it_anew_only_where_nothing_is_unsaved(hand: Hand, clock: SaveClock) -> None:
    clock.begun(100)
    hand.now_s += 20.0
    clock.enter(130, 100)
    hand.now_s += 10.0
    assert clock.flags(30.0) == DUE, "a peer had the state of step 130: the clock goes on"
    clock.enter(100, 100)
    assert clock.flags(30.0) == WAITS, "back at the checkpoint"


def test_what_was_begun_and_came_to_nothing_is_made_up_for_at_once(clock: SaveClock) -> None:
    clock.begun(120)
    clock.enter(121, 80)
    assert clock.flags(1e9) == DUE
    clock.begun(122)
    assert clock.flags(1e9) == WAITS


def test_a_newcomer_counts_from_its_beginning(hand: Hand, clock: SaveClock) -> None:
    hand.now_s += 5.0
    clock.enter(130, 100)
    assert clock.flags(6.0) == WAITS
    hand.now_s += 1.0
    assert clock.flags(6.0) == DUE


@pytest.mark.parametrize(
    ("step", "by_time", "due"),
    [
        (5, True, True),
        (7, False, False),
        (8, None, True),
        (7, None, False),
        (4, True, False),
        (9, False, True),
        (9, None, True),
    ],
    ids=["over", "not over", "steps over", "steps not over", "saved", "last step", "last step by steps"],
)
def test_time_takes_the_place_of_steps_and_the_last_step_is_saved_anyway(
    step: int, by_time: bool | None, due: bool
) -> None:
    checkpoints = Checkpoints(spec=CheckpointSpec(interval_steps=4), uri="", faults=FaultPlan())
    assert checkpoints.due(step, steps=9, saved_step=4, by_time=by_time) is due
