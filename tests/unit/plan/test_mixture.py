"""Without it a mixture could give a source too much or too little, or go on after a resume somewhere else."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainctl.core.records.train_spec import BatchSpec
from trainctl.parallel.plan.grouped_order import GroupedOrder
from trainctl.parallel.plan.mixture import MAX_CYCLE, MixtureOrder, deal_cycle, parts
from trainctl.parallel.plan.sample_order import SampleOrder

many_parts = st.lists(st.integers(1, 60), min_size=1, max_size=8)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ((1.0,), (1,)),
        ((0.7, 0.2, 0.1), (7, 2, 1)),
        ((30, 60, 10), (3, 6, 1)),
        ((1e-3, 1.0), (1, 1000)),
        ((2.5, 2.5), (1, 1)),
    ],
)
def test_weights_become_whole_parts_as_they_are_written(weights: tuple[float, ...], expected: tuple[int, ...]) -> None:
    assert parts(weights) == expected


@given(st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=6))
def test_odd_weights_are_rounded_to_a_long_cycle(weights: list[float]) -> None:
    rounded = parts(weights)
    assert sum(rounded) <= MAX_CYCLE
    for part, weight in zip(rounded, weights, strict=True):
        assert abs(part / sum(rounded) - weight / sum(weights)) <= 1 / MAX_CYCLE + 1e-12


@given(many_parts)
def test_every_prefix_has_its_shares_to_within_one_sample(cycle_parts: list[int]) -> None:
    cycle = deal_cycle(cycle_parts)
    total, counts = sum(cycle_parts), Counter[int]()
    for length, source in enumerate(cycle * 2, start=1):
        counts[source] += 1
        for index, part in enumerate(cycle_parts):
            assert abs(counts[index] - Fraction(part * length, total)) < 1
    assert [counts[index] for index in range(len(cycle_parts))] == [2 * part for part in cycle_parts]


@given(many_parts, st.integers(0, 99), st.data())
def test_random_access_equals_going_through_the_stream(cycle_parts: list[int], seed: int, data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(1, 40), min_size=len(cycle_parts), max_size=len(cycle_parts)))
    orders = [SampleOrder(size, seed + index) for index, size in enumerate(sizes)]
    mixture = MixtureOrder.of(orders, sizes, [float(part) for part in cycle_parts])
    length = 150
    expected, taken = [], Counter[int]()
    for position in range(length):
        source, nth = mixture.source(position)
        assert nth == taken[source]
        taken[source] += 1
        expected.append(sum(sizes[:source]) + orders[source].ids(nth, 1)[0])
    start = data.draw(st.integers(0, length - 1))
    assert mixture.ids(start, length - start) == tuple(expected[start:])


def test_each_source_goes_through_its_own_epochs() -> None:
    mixture = MixtureOrder.of([SampleOrder(5, 1), SampleOrder(40, 2)], [5, 40], [1.0, 3.0])
    ids = mixture.ids(0, 160)
    small, large = [i for i in ids if i < 5], [i for i in ids if i >= 5]
    assert len(small) == 40
    assert all(sorted(small[start : start + 5]) == list(range(5)) for start in range(0, 40, 5))
    assert all(sorted(large[start : start + 40]) == list(range(5, 45)) for start in range(0, 120, 40))


@settings(deadline=None)
@given(st.integers(1, 400), st.integers(0, 99), st.integers(1, 60), st.integers(1, 6), st.integers(1, 5))
def test_a_grouped_epoch_has_every_sample_once(size: int, seed: int, group: int, micro: int, per_micro: int) -> None:
    batch = BatchSpec(sequences=micro * per_micro, micro_batches=micro)
    order = GroupedOrder.of(size, seed=seed, batch=batch, group_samples=group)
    epochs = [order.ids(size * epoch, size) for epoch in range(2)]
    assert all(sorted(epoch) == list(range(size)) for epoch in epochs)
    assert order.ids(0, 2 * size)[size // 2 :] == order.ids(size // 2, 2 * size - size // 2)


def test_a_rank_opens_few_groups_at_a_time() -> None:
    batch = BatchSpec(sequences=16, micro_batches=4)
    order = GroupedOrder.of(100_000, seed=3, batch=batch, group_samples=500)
    ids = order.ids(0, 16 * 200)
    first_of_four_ranks = [i for start in range(0, len(ids), 16) for i in ids[start : start + 4]]
    runs = {i // order.run for i in first_of_four_ranks}
    assert len(runs) <= 2 * -(-len(first_of_four_ranks) // (2 * order.run))
    assert len({i // order.run for i in ids[:16]}) >= 4
    assert order.ids(0, 1000) != GroupedOrder.of(100_000, seed=4, batch=batch, group_samples=500).ids(0, 1000)
