"""Without it samples could be skipped or doubled when ranks come and go, and results depend on their number."""

from __future__ import annotations

import functools
import math
import operator
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainctl.core.errors import DataError, InternalError, PlanError, PreconditionError
from trainctl.core.records.step import StepAction
from trainctl.core.records.train_spec import BatchSpec, ScheduleSpec
from trainctl.parallel.plan.digest import add_digests, sample_digest
from trainctl.parallel.plan.learning_rate import learning_rate_schedule
from trainctl.parallel.plan.micro_batches import deal, micro_batches_of_step
from trainctl.parallel.plan.randomness import derive_seed, mix64
from trainctl.parallel.plan.sample_order import SampleOrder, permute
from trainctl.parallel.plan.vote import Agreement, Ballot, Saved, VoteFlag, VoteRecord, agree, fold, packed_size, unpack

words = st.integers(0, 2**64 - 1)
numbers = st.floats(allow_nan=False)


@given(st.integers(0, 500), st.integers(1, 40))
def test_deal_covers_everything_once_and_evenly(num_items: int, num_parts: int) -> None:
    parts = deal(num_items, num_parts)
    assert [i for part in parts for i in part] == list(range(num_items))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_deal_to_nobody_is_an_error() -> None:
    with pytest.raises(PlanError, match="at least 1 part"):
        deal(4, 0)


@given(st.integers(1, 700), words)
def test_order_is_an_exact_permutation(size: int, key: int) -> None:
    assert sorted(permute(i, size, key) for i in range(size)) == list(range(size))


@given(st.integers(1, 60), st.integers(0, 200), st.integers(1, 150), st.integers(0, 99))
def test_stream_is_the_same_however_it_is_cut(size: int, position: int, count: int, seed: int) -> None:
    order = SampleOrder(size, seed)
    assert order.ids(position, count) == tuple(i for p in range(position, position + count) for i in order.ids(p, 1))


def test_each_epoch_has_each_sample_once_in_another_order() -> None:
    order = SampleOrder(101, 7)
    epochs = [order.ids(101 * epoch, 101) for epoch in range(3)]
    assert all(sorted(epoch) == list(range(101)) for epoch in epochs)
    assert len(set(epochs)) == 3


def test_order_looks_shuffled() -> None:
    ids = SampleOrder(10_000, 3).ids(0, 10_000)
    mean = sum(i * (sample - 4999.5) for i, sample in enumerate(ids)) / 10_000
    assert abs(mean / (10_000**2 / 12)) < 0.05  # correlation between position and sample


def test_no_samples_is_a_data_error() -> None:
    with pytest.raises(DataError):
        SampleOrder(0, 1)


@given(st.integers(1, 30), st.integers(1, 8), st.integers(0, 1000))
def test_micro_batches_do_not_depend_on_ranks_and_cover_the_batch(sequences: int, micro: int, cursor: int) -> None:
    batch = BatchSpec(sequences=sequences, micro_batches=micro)
    order = SampleOrder(97, 5)
    parts = micro_batches_of_step(order, batch, step=3, cursor=cursor, seed=1)
    assert tuple(i for part in parts for i in part.sample_ids) == order.ids(cursor, sequences)
    assert len({part.seed for part in parts}) == micro


@given(st.lists(st.lists(st.integers(0, 10**9))))
def test_digest_adds_up_in_any_order(parts: list[list[int]]) -> None:
    everything = [i for part in parts for i in part]
    assert add_digests(sample_digest(part) for part in reversed(parts)) == sample_digest(reversed(everything))


def test_digest_sees_a_doubled_and_a_missing_sample() -> None:
    digests = Counter(sample_digest(ids) for ids in ([1, 2, 3], [1, 2], [1, 2, 3, 3], [1, 2, 4]))
    assert set(digests.values()) == {1}


def test_mix64_is_splitmix64() -> None:
    assert mix64(0) == 0xE220A8397B1DCDAF  # first output of the published generator seeded with 0


@given(words, words, words)
def test_seed_depends_on_every_coordinate(seed: int, step: int, micro: int) -> None:
    base = derive_seed(seed, step, micro)
    assert 0 <= base < 2**63
    assert base != derive_seed(seed, step, micro ^ 1)
    assert base != derive_seed(seed, step ^ 1, micro)


def test_schedule_warms_up_then_falls_to_its_floor() -> None:
    rate = learning_rate_schedule(ScheduleSpec(warmup_steps=10, min_lr_ratio=0.1), peak=2.0, steps=110)
    assert rate(1) == pytest.approx(0.2)
    assert rate(10) == pytest.approx(2.0)
    assert rate(60) == pytest.approx(2.0 * (0.1 + 0.9 * 0.5))
    assert rate(110) == rate(111) == pytest.approx(0.2)


def test_constant_schedule_without_warm_up() -> None:
    rate = learning_rate_schedule(ScheduleSpec(kind="constant", warmup_steps=0), peak=0.5, steps=9)
    assert [rate(1), rate(9)] == [0.5, 0.5]


def test_unknown_schedule_names_the_known_ones() -> None:
    with pytest.raises(PlanError, match="cosine or constant"):
        learning_rate_schedule(ScheduleSpec(kind="linear"), peak=1.0, steps=1)


def ballot(**changes: object) -> Ballot:
    values: dict[str, object] = {
        "generation": 2,
        "lineage": 1,
        "step": 5,
        "learning_rate": 0.1,
        "clip_norm": 1.0,
        "cursor": 40,
        "sample_digest": sample_digest(range(8)),
    }
    return Ballot(**(values | changes))  # type: ignore[arg-type]


def record(rank: int, **changes: object) -> VoteRecord:
    values: dict[str, object] = {
        "generation": 2,
        "lineage": 1,
        "step": 5,
        "flags": VoteFlag.OK,
        "tokens": 10,
        "loss_sum": 20.0,
        "sample_digest": sample_digest(deal(8, 2)[rank]),
        "squared_norms": (900.0, 700.0),
    }
    return VoteRecord(**(values | changes))  # type: ignore[arg-type]


@given(
    st.tuples(*[st.integers(-(2**63), 2**63 - 1)] * 6),
    words,
    st.floats(),
    st.lists(st.floats(), max_size=5),
    st.integers(0, 63),
)
@settings(max_examples=50)
def test_pack_is_exact(ints: tuple[int, ...], digest: int, loss: float, norms: list[float], flags: int) -> None:
    before = VoteRecord(
        generation=ints[0],
        lineage=ints[1],
        step=ints[2],
        flags=VoteFlag(flags),
        tokens=ints[3],
        loss_sum=loss,
        sample_digest=digest,
        saved=Saved(ints[4], ints[5]),
        squared_norms=tuple(norms),
    )
    data = before.pack()
    assert len(data) == packed_size(len(norms))
    assert unpack(data).pack() == data
    assert repr(unpack(data)) == repr(before)  # repr also compares NaNs


def test_fold_clips_the_mean_gradient() -> None:
    outcome = fold([record(0), record(1)], ballot())
    assert outcome.action is StepAction.APPLY
    assert outcome.gradient_norm == pytest.approx(math.sqrt(3200.0) / 20)
    assert outcome.gradient_scale == pytest.approx(1.0 / outcome.gradient_norm / 20)
    assert (outcome.tokens, outcome.loss_sum, outcome.cursor) == (20, 40.0, 40)


def test_fold_without_clipping_is_the_mean() -> None:
    assert fold([record(0), record(1)], ballot(clip_norm=0.0)).gradient_scale == 1 / 20


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"flags": VoteFlag.OK | VoteFlag.NON_FINITE, "loss_sum": math.nan}, "not finite on rank 1"),
        ({"flags": VoteFlag(0)}, "left out on rank 1"),
    ],
)
def test_fold_skips_and_says_why(changes: dict[str, object], reason: str) -> None:
    outcome = fold([record(0), record(1, **changes)], ballot())
    assert outcome.action is StepAction.SKIP
    assert reason in outcome.reason
    assert outcome.cursor == 40  # a skip commits the step, too


def test_fold_refuses_a_step_to_which_nobody_gave_a_gradient() -> None:
    nothing: dict[str, object] = {"flags": VoteFlag(0), "tokens": 0}
    with pytest.raises(PreconditionError, match=r"no rank called step\.backward"):
        fold([record(0, **nothing), record(1, **nothing)], ballot())
    assert fold([record(0), record(1, **nothing)], ballot()).action is StepAction.SKIP


def test_fold_skips_a_batch_without_targets() -> None:
    outcome = fold([record(0, tokens=0), record(1, tokens=0)], ballot())
    assert outcome.reason == "no targets in the global batch"


@pytest.mark.parametrize("changes", [{"step": 6}, {"generation": 1}, {"lineage": 2}])
def test_fold_refuses_votes_on_something_else(changes: dict[str, object]) -> None:
    with pytest.raises(InternalError, match="from rank 1"):
        fold([record(0), record(1, **changes)], ballot())


def test_fold_refuses_a_sample_counted_twice() -> None:
    with pytest.raises(InternalError, match="sample digest"):
        fold([record(0), record(0)], ballot())


BY_TIME = VoteFlag.SAVE_BY_TIME


def test_flags_fold_by_or() -> None:
    assert VoteFlag.STOP in agree([record(0), record(1, flags=VoteFlag.OK | VoteFlag.STOP)]).flags
    assert VoteFlag.STOP not in agree([record(0), record(1)]).flags


@pytest.mark.parametrize(
    ("said", "due"),
    [
        ((BY_TIME, BY_TIME), False),
        ((BY_TIME, BY_TIME | VoteFlag.SAVE_NOW), True),
        ((BY_TIME | VoteFlag.SAVE_NOW, BY_TIME | VoteFlag.SAVE_NOW), True),
        ((BY_TIME | VoteFlag.SAVE_NOW, VoteFlag.NONE), None),
        ((VoteFlag.NONE, VoteFlag.NONE), None),
    ],
)
def test_the_first_clock_that_is_over_counts_once_all_ranks_save_by_time(
    said: tuple[VoteFlag, VoteFlag], due: bool | None
) -> None:
    """A rank of another version, or that was not told yet, says nothing: then all count steps."""
    records = [record(rank, flags=VoteFlag.OK | flags) for rank, flags in enumerate(said)]
    assert agree(records).save_due is due
    assert agree(records[::-1]).save_due is due
    assert agree([unpack(one.pack()) for one in records]) == agree(records)
    assert Agreement().save_due is None, "before the first vote of a generation"


SAVE_FLAGS = [VoteFlag.SAVE_BY_TIME, VoteFlag.SAVE_NOW, VoteFlag.SNAPSHOT_BY_TIME, VoteFlag.SNAPSHOT_NOW]


@given(st.lists(st.sets(st.sampled_from(SAVE_FLAGS)), min_size=1, max_size=5))
def test_snapshots_have_a_clock_of_their_own_and_whatever_ranks_were_told_they_agree(said: list[set[VoteFlag]]) -> None:
    """Whether one is made does not hang on the order of the ranks, nor on what they say of checkpoints."""
    votes = [functools.reduce(operator.or_, flags, VoteFlag.OK) for flags in said]
    records = [record(rank % 2, flags=flags) for rank, flags in enumerate(votes)]
    for folded in (agree(records), agree(records[::-1]), agree([unpack(one.pack()) for one in records])):
        for due, by_time, now in (
            (folded.save_due, VoteFlag.SAVE_BY_TIME, VoteFlag.SAVE_NOW),
            (folded.snapshot_due, VoteFlag.SNAPSHOT_BY_TIME, VoteFlag.SNAPSHOT_NOW),
        ):
            everybody = all(by_time in flags for flags in said)
            assert due is (any(now in flags for flags in said) if everybody else None)
    assert Agreement().snapshot_due is None, "before the first vote of a generation"


def test_what_is_saved_folds_to_what_the_last_rank_has_saved() -> None:
    records = [record(0, saved=Saved(3, 1)), record(1, saved=Saved(2, 1 << 62))]
    assert agree(records).saved == Saved(2, 1)
