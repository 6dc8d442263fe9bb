"""The time between two checkpoints, as a function of what is known: Young and Daly, within limits, without flutter.

Without it a job could spend its time on saves, or lose hours to a failure.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from trainctl.controller.domain.failure_rate import HALF_LIFE_S, NODE_APART_S, PRIOR_S, FailureRate, failure_rate
from trainctl.controller.domain.job_records import TrainProgress
from trainctl.controller.domain.save_cost import COSTS_KEPT, SaveCost, SaveTimes, cost_of, with_cost
from trainctl.controller.domain.save_interval import (
    CHANGE,
    CHECKPOINTS,
    FIRST_S,
    MAX_S,
    MIN_S,
    SNAPSHOT_FIRST_S,
    SNAPSHOT_MIN_S,
    SNAPSHOTS,
    CheckpointInterval,
    choose_interval,
    fixed_interval,
)

HOUR_S, DAY_S = 3600.0, 86400.0
stalls = st.floats(min_value=0.0, max_value=300.0)
times = st.floats(min_value=0.0, max_value=3 * HOUR_S)
apart = st.floats(min_value=60.0, max_value=1e9)


def chosen(
    stall_s: float,
    apart_s: float,
    *,
    seconds: float = 0.0,
    before: CheckpointInterval | None = None,
    restore_s: float | None = None,
) -> CheckpointInterval:
    return choose_interval(
        costs=[SaveCost(stall_s=stall_s, seconds=seconds)] * 3,
        failures=FailureRate(apart_s=apart_s, because="seen"),
        restore_s=restore_s,
        before=before,
        now_s=5.0,
    )


@pytest.mark.parametrize(
    ("stall_s", "apart_s", "interval_s", "waste"),
    [(0.2, 10_080.0, 63.5, 0.0063), (60.0, 10_080.0, 1099.8, 0.1091)],
    ids=["cheap", "dear"],
)
def test_the_published_examples(stall_s: float, apart_s: float, interval_s: float, waste: float) -> None:
    """Llama 3 on 16,384 GPUs failed every 2.8 h."""
    found = chosen(stall_s, apart_s)
    assert found.interval_s == pytest.approx(interval_s, rel=0.001)
    assert found.waste == pytest.approx(waste, rel=0.01)
    assert found.since_s == 5.0


@given(stalls, stalls, apart, apart, times)
def test_dearer_checkpoints_are_rarer_and_more_failures_make_them_more_frequent(
    one_s: float, other_s: float, seldom_s: float, often_s: float, seconds: float
) -> None:
    cheap_s, dear_s = sorted((one_s, other_s))
    often_s, seldom_s = sorted((often_s, seldom_s))
    assert chosen(cheap_s, often_s, seconds=seconds).interval_s <= chosen(dear_s, often_s, seconds=seconds).interval_s
    assert chosen(cheap_s, often_s, seconds=seconds).interval_s <= chosen(cheap_s, seldom_s, seconds=seconds).interval_s


@given(stalls, apart, times)
def test_it_has_limits_and_one_checkpoint_is_complete_before_the_next_begins(
    stall_s: float, apart_s: float, seconds: float
) -> None:
    found = chosen(stall_s, apart_s, seconds=seconds)
    assert max(MIN_S, seconds) <= found.interval_s <= max(MAX_S, CHANGE * seconds)
    assert found.waste is not None
    assert 0.0 < found.waste <= 1.0
    best_s = math.sqrt(2 * stall_s * apart_s)
    assert (", but it " in found.reason) == (found.interval_s != best_s)


@given(st.floats(min_value=0.1, max_value=10.0), st.floats(min_value=4 * HOUR_S, max_value=10 * HOUR_S))
def test_no_other_interval_loses_less(stall_s: float, apart_s: float) -> None:
    found = chosen(stall_s, apart_s)
    assume(MIN_S < found.interval_s < MAX_S)
    for factor in (0.5, 0.9, 1.1, 2.0):
        other_s = found.interval_s * factor
        assert found.waste is not None
        assert stall_s / other_s + other_s / 2 / apart_s > found.waste


@given(stalls, apart, stalls, apart, times)
def test_what_is_nearly_as_good_stays(
    stall_s: float, apart_s: float, later_s: float, then_s: float, seconds: float
) -> None:
    before = chosen(stall_s, apart_s, seconds=seconds)
    fresh = chosen(later_s, then_s, seconds=seconds)
    found = chosen(later_s, then_s, seconds=seconds, before=before)
    factor = max(fresh.interval_s / before.interval_s, before.interval_s / fresh.interval_s)
    if factor > CHANGE * 1.0001:
        assert found == fresh
    elif factor < CHANGE * 0.9999:
        assert found is before
    assert chosen(later_s, then_s, seconds=seconds, before=found) is found, "and then it rests"


@given(stalls, apart, times)
def test_snapshots_have_limits_of_their_own_and_are_called_so(stall_s: float, apart_s: float, seconds: float) -> None:
    checkpoint, snapshot = (
        choose_interval(
            costs=[SaveCost(stall_s=stall_s, seconds=seconds)] * 3,
            failures=FailureRate(apart_s=apart_s, because="seen"),
            restore_s=None,
            before=None,
            now_s=5.0,
            kind=kind,
        )
        for kind in (CHECKPOINTS, SNAPSHOTS)
    )
    assert max(SNAPSHOT_MIN_S, seconds) <= snapshot.interval_s <= max(MAX_S, CHANGE * seconds)
    assert snapshot.interval_s == checkpoint.interval_s or snapshot.interval_s < checkpoint.interval_s == MIN_S
    assert snapshot.reason.startswith("a snapshot costs ")
    assert " between snapshots lose least" in snapshot.reason
    assert "checkpoint" not in snapshot.reason


def test_before_the_first_snapshot_nobody_knows() -> None:
    nothing = FailureRate(apart_s=DAY_S, because="")
    first = choose_interval(costs=(), failures=nothing, restore_s=None, before=None, now_s=1.0, kind=SNAPSHOTS)
    assert first.interval_s == SNAPSHOT_FIRST_S
    assert first.reason == "no snapshot was made yet: the first one shows what one costs"
    assert fixed_interval(3.0, 1.0, SNAPSHOTS).reason == "spec.checkpoint.snapshots.interval says so"


def test_saves_that_take_longer_than_the_interval_end_it_and_room_is_left_for_the_next() -> None:
    before = chosen(0.2, 10_080.0, seconds=50.0)
    assert before.interval_s == pytest.approx(63.5, rel=0.001)
    assert chosen(0.2, 10_080.0, seconds=63.0, before=before) is before
    longer = chosen(0.2, 10_080.0, seconds=64.0, before=before)
    assert longer.interval_s == pytest.approx(76.8)
    assert ", but it takes 1m04s until one is complete; " in longer.reason
    assert chosen(0.2, 10_080.0, seconds=70.0, before=longer) is longer


def test_one_save_that_took_hours_is_not_what_saves_take() -> None:
    """A machine was suspended."""
    failures = FailureRate(apart_s=10_080.0, because="")
    costs = [SaveCost(stall_s=0.2, seconds=seconds) for seconds in (50_000.0, 2.0, 3.0)]
    found = [
        choose_interval(costs=costs[:count], failures=failures, restore_s=None, before=None, now_s=1.0).interval_s
        for count in (1, 2, 3)
    ]
    assert found == pytest.approx([MAX_S, MAX_S, 63.5], rel=0.001)


def test_before_the_first_checkpoint_nobody_knows_and_then_it_is_said_even_if_nothing_changes() -> None:
    nothing = FailureRate(apart_s=DAY_S, because="")
    first = choose_interval(costs=(), failures=nothing, restore_s=None, before=None, now_s=1.0)
    assert (first.interval_s, first.waste, first.cost_s, first.failures_apart_s) == (FIRST_S, None, None, None)
    often = FailureRate(apart_s=60.0, because="")
    assert choose_interval(costs=(), failures=often, restore_s=9.0, before=first, now_s=2.0) is first
    stall_s = FIRST_S**2 / 2 / DAY_S
    same = chosen(stall_s, DAY_S, before=first)
    assert same.interval_s == pytest.approx(FIRST_S)
    assert same.cost_s == stall_s
    fixed = fixed_interval(600.0, 1.0)
    assert (fixed.interval_s, fixed.waste) == (600.0, None)


def test_what_one_costs_is_the_middle_of_the_newest_with_the_steps_it_slowed_down() -> None:
    costs: tuple[SaveCost, ...] = ()
    for stall_s, slowdown_s in ((9.0, None), (0.1, 0.5), (0.3, -0.2), (0.2, 0.3), (0.2, None)):
        costs = with_cost(costs, SaveCost(stall_s=stall_s, seconds=1.0, slowdown_s=slowdown_s))
    failures = FailureRate(apart_s=DAY_S, because="3 failures in 2h")
    found = choose_interval(costs=costs, failures=failures, restore_s=12.0, before=None, now_s=1.0)
    assert found.cost_s == pytest.approx(0.2 + 0.3)
    assert found.interval_s == pytest.approx(math.sqrt(2 * 0.5 * DAY_S))
    assert found.waste == pytest.approx(0.5 / 293.94 + (293.94 / 2 + 1.0 + 12.0) / DAY_S, rel=1e-4)
    assert found.reason == (
        "a checkpoint costs 0.50s of training (0.20s waiting for it, 0.30s of slower steps beside it, median of 5), "
        "failures are 1d00h apart (3 failures in 2h): 4m54s between checkpoints lose least; 0.36 % of the time is "
        "lost, with what failures undo and 12s for each recovery"
    )
    for _ in range(COSTS_KEPT):
        costs = with_cost(costs, SaveCost(stall_s=1.0, seconds=1.0))
    assert costs == (SaveCost(stall_s=1.0, seconds=1.0),) * COSTS_KEPT


def test_steps_that_took_less_by_chance_are_no_gain() -> None:
    costs = [SaveCost(stall_s=0.1, seconds=1.0, slowdown_s=-5.0)]
    failures = FailureRate(apart_s=DAY_S, because="")
    assert choose_interval(costs=costs, failures=failures, restore_s=None, before=None, now_s=1.0).cost_s == 0.1


TIMES = SaveTimes(step=100, lineage=1, stall_s=0.25, seconds=2.5)
PROGRESS = TrainProgress(lineage=1, step=104, recent_step_s=(1.0, 1.0, 1.1, 0.9, 1.0, 1.5, 1.4, 1.0, 9.0))


def test_the_steps_beside_a_checkpoint_are_compared_with_those_before() -> None:
    """Steps 101 and 102 were beside it for 2.5 s: 0.5 + 0.4 s longer, of which training stood still for 0.25 s."""
    found = cost_of(TIMES, PROGRESS)
    assert found is not None
    assert (found.stall_s, found.seconds) == (0.25, 2.5)
    assert found.slowdown_s == pytest.approx(0.65)


@pytest.mark.parametrize(
    "progress",
    [
        replace(PROGRESS, lineage=2),
        replace(PROGRESS, missed=(3, 4)),
        replace(PROGRESS, step=100),
        replace(PROGRESS, step=99),
        replace(PROGRESS, step=120),
        replace(PROGRESS, step=107),
        replace(PROGRESS, step=101, recent_step_s=(1.0, 1.0, 1.1, 0.9, 1.0, 1.2)),
        TrainProgress(),
    ],
    ids=["rolled back", "missed", "none later", "behind", "all later", "few before", "not all told", "nothing"],
)
def test_where_steps_are_not_known_nothing_is_made_of_them(progress: TrainProgress) -> None:
    assert cost_of(TIMES, progress) == SaveCost(stall_s=0.25, seconds=2.5)


def test_a_job_without_failures_fails_as_often_as_its_nodes_are_expected_to() -> None:
    new = failure_rate(nodes=4, ran_s=0.0, ages_s=())
    assert new.apart_s == pytest.approx(NODE_APART_S / 4)
    assert new.because == "none in 0.00s; one in 25d00h is expected of 4 nodes"
    quiet = failure_rate(nodes=4, ran_s=30 * DAY_S, ages_s=())
    assert NODE_APART_S / 4 < quiet.apart_s < 8 * NODE_APART_S / 4


@given(st.integers(min_value=1, max_value=4096), st.floats(min_value=0.0, max_value=1e8), st.integers(0, 64))
def test_each_failure_and_each_node_makes_the_next_likelier(nodes: int, ran_s: float, count: int) -> None:
    ages_s = [ran_s * index / 64 for index in range(count)]
    now = failure_rate(nodes=nodes, ran_s=ran_s, ages_s=ages_s)
    assert 0.0 < failure_rate(nodes=nodes, ran_s=ran_s, ages_s=[*ages_s, 0.0]).apart_s < now.apart_s
    assert failure_rate(nodes=nodes + 1, ran_s=ran_s, ages_s=ages_s).apart_s < now.apart_s
    later = failure_rate(nodes=nodes, ran_s=ran_s + DAY_S, ages_s=[age_s + DAY_S for age_s in ages_s])
    assert later.apart_s >= now.apart_s, "a quiet day makes it less likely"


def test_one_failure_says_more_than_the_prior_and_is_forgotten_again() -> None:
    """In hours, of a node that ran for two."""
    burst = [failure_rate(nodes=1, ran_s=2 * HOUR_S, ages_s=[60.0] * count).apart_s / HOUR_S for count in range(4)]
    assert burst == pytest.approx([3188.0, 7.98, 3.99, 2.66], rel=0.01)
    after = [
        failure_rate(nodes=1, ran_s=2 * HOUR_S + days * DAY_S, ages_s=[days * DAY_S] * 3).apart_s / HOUR_S
        for days in (1, 3, 7)
    ]
    assert after == pytest.approx([16.4, 97.0, 1594.0], rel=0.05)
    assert (PRIOR_S, HALF_LIFE_S) == (6 * HOUR_S, DAY_S)


def test_with_many_failures_the_estimate_comes_near_to_what_was_counted() -> None:
    """2,048 nodes are expected to fail every 70 minutes; here it is every ten, or every five hours."""
    often = failure_rate(nodes=2048, ran_s=4 * DAY_S, ages_s=[600.0 * index for index in range(4 * 144)])
    seldom = failure_rate(nodes=2048, ran_s=20 * DAY_S, ages_s=[5 * HOUR_S * index for index in range(4 * 24)])
    assert often.apart_s == pytest.approx(600.0, rel=0.2)
    assert seldom.apart_s == pytest.approx(5 * HOUR_S, rel=0.4)


def test_what_took_no_time_that_a_clock_shows_is_counted() -> None:
    assert cost_of(replace(TIMES, stall_s=0.0), PROGRESS) is not None
    assert cost_of(replace(TIMES, seconds=0.0), PROGRESS) is not None


@pytest.mark.parametrize("nonsense", [-1.0, math.nan, math.inf, -math.inf])
def test_a_cost_that_cannot_be_is_not_counted(nonsense: float) -> None:
    known = (SaveCost(stall_s=1.0, seconds=1.0),)
    for times in (replace(TIMES, stall_s=nonsense), replace(TIMES, seconds=nonsense)):
        assert with_cost(known, cost_of(times, PROGRESS)) == known
    strange = replace(PROGRESS, recent_step_s=(*PROGRESS.recent_step_s[:-4], math.inf, 1.4, 1.0, 9.0))
    assert cost_of(TIMES, strange) == SaveCost(stall_s=0.25, seconds=2.5)
