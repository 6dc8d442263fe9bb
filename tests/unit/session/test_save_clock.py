"""When it is time to save: by a clock that no failure begins anew.

Without it a job that fails often could never come to save.
"""

from __future__ import annotations

import pytest

from trainctl.core.records.spec import CheckpointSpec, SnapshotsSpec
from trainctl.core.records.worker import Instruction, WorkerDesired
from trainctl.core.system.faults import FaultPlan
from trainctl.parallel.plan.vote import VoteFlag
from trainctl.parallel.session.checkpoints import Checkpoints
from trainctl.parallel.session.save_clock import SaveClock, SaveClocks

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


# -- snapshots ---------------------------------------------------------------------------------------------------------

MAKES = VoteFlag.SNAPSHOT_BY_TIME
DUE_IN_MEMORY = MAKES | VoteFlag.SNAPSHOT_NOW


def told(checkpoint_s: float, snapshot_s: float) -> WorkerDesired:
    return WorkerDesired(
        job_uid="j", job_name="j", island="i", slot=0, incarnation=1, instruction=Instruction.RUN,
        checkpoint_interval_s=checkpoint_s, snapshot_interval_s=snapshot_s,
    )  # fmt: skip


@pytest.fixture
def clocks(hand: Hand) -> SaveClocks:
    in_memory = SaveClock(hand, by_time=VoteFlag.SNAPSHOT_BY_TIME, over=VoteFlag.SNAPSHOT_NOW)
    return SaveClocks(SaveClock(hand), in_memory)


def test_snapshots_have_a_clock_of_their_own(hand: Hand, clocks: SaveClocks) -> None:
    assert clocks.flags(told(0.0, 0.0)) is VoteFlag.NONE
    hand.now_s += 10.0
    assert clocks.flags(told(60.0, 10.0)) == WAITS | DUE_IN_MEMORY
    clocks.snapshots.begun(7)
    assert clocks.flags(told(60.0, 10.0)) == WAITS | MAKES
    hand.now_s += 50.0
    assert clocks.flags(told(60.0, 0.0)) == DUE, "a checkpoint alone"
    clocks.checkpoints.begun(9)
    assert clocks.flags(told(60.0, 50.0)) == WAITS | DUE_IN_MEMORY
    assert SaveClocks().flags(told(0.0, 1e9)) == MAKES


def test_a_generation_that_goes_on_makes_a_snapshot_at_once_and_a_new_run_does_not(clocks: SaveClocks) -> None:
    """Whoever came for the lost has none in its memory; at step 0 there is nothing worth one."""
    clocks.enter(0, -1)
    assert clocks.flags(told(60.0, 1e9)) == WAITS | MAKES
    clocks.snapshots.begun(100)
    clocks.enter(120, 120)
    assert clocks.flags(told(60.0, 1e9)) == WAITS | DUE_IN_MEMORY
    clocks.snapshots.begun(121)
    assert clocks.flags(told(60.0, 1e9)) == WAITS | MAKES


@pytest.mark.parametrize(
    ("step", "by_time", "due"),
    [(5, True, True), (7, False, False), (8, False, False), (8, None, True), (7, None, False), (4, True, False)],
    ids=["over", "not over", "not over, steps are", "steps over", "steps not over", "made"],
)
def test_time_takes_the_place_of_steps_for_snapshots(step: int, by_time: bool | None, due: bool) -> None:
    spec = CheckpointSpec(snapshots=SnapshotsSpec(interval_steps=4, interval="auto"))
    assert Checkpoints(spec=spec, uri="", faults=FaultPlan()).snapshot_due(step, 4, by_time=by_time) is due


@pytest.mark.parametrize("step", [1, 100])
def test_without_steps_to_count_none_is_made_until_all_ranks_were_told(step: int) -> None:
    checkpoints = Checkpoints(spec=CheckpointSpec(snapshots=SnapshotsSpec(interval="auto")), uri="", faults=FaultPlan())
    assert checkpoints.snapshot_due(step, -1) is False
    assert checkpoints.snapshot_due(step, -1, by_time=True) is True
