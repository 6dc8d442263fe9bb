"""Without it a load could wait for one rank that reads most of the bytes while the others are idle."""

from __future__ import annotations

import itertools
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from trainctl.checkpoint.layout.balance import balance
from trainctl.checkpoint.layout.copy_plan import Transfer, copy_plan
from trainctl.checkpoint.layout.grid import disjoint
from trainctl.checkpoint.layout.key import StateKey
from trainctl.checkpoint.layout.layout import Layout, rank_holder, replicated
from trainctl.checkpoint.layout.region import Flat, Region, common, order_of, volume, whole
from unit.checkpoint.layouts import cut_rows, key

SOURCES = "abcdef"

pools = st.dictionaries(
    st.sets(st.sampled_from(SOURCES), min_size=1).map(lambda found: tuple(sorted(found))),
    st.integers(1, 10**9),
    min_size=1,
    max_size=12,
)


def least_possible(wanted: dict[tuple[str, ...], int]) -> float:
    """Some set of sources has to supply, on its own, all that nobody else has."""
    groups = itertools.chain.from_iterable(itertools.combinations(SOURCES, n) for n in range(1, len(SOURCES) + 1))
    return max(sum(size for sources, size in wanted.items() if {*sources} <= {*group}) / len(group) for group in groups)


@given(pools)
def test_no_source_reads_much_more_than_the_best_division_needs(wanted: dict[tuple[str, ...], int]) -> None:
    shares = balance(wanted)
    load = Counter[str]()
    for sources, size in wanted.items():
        assert sum(shares[sources]) == size
        assert min(shares[sources]) >= 0
        load.update(dict(zip(sources, shares[sources], strict=True)))
    assert max(load.values()) <= 1.05 * least_possible(wanted) + len(SOURCES)


def test_who_has_less_to_do_gets_more_to_the_byte() -> None:
    assert balance({("a",): 10, ("b",): 4, ("a", "b"): 8}) == {("a",): (10,), ("b",): (4,), ("a", "b"): (1, 7)}
    assert balance({("a",): 10, ("b",): 4, ("a", "b"): 6})[("a", "b")] == (0, 6)
    assert balance({("a", "b", "c"): 8})[("a", "b", "c")] == (3, 3, 2)


def test_sets_that_overlap_agree_in_turns() -> None:
    shares = balance({("a", "b"): 10, ("b", "c"): 10, ("c",): 30})
    assert shares == {("a", "b"): (10, 0), ("b", "c"): (10, 0), ("c",): (30,)}


@given(st.data())
def test_large_ranges_are_split_without_gaps(data: st.DataObject) -> None:
    shapes = {key(name): (data.draw(st.integers(1, 300_000)),) for name in "abc"}
    src = Layout(shapes, {rank_holder(r): {k: data.draw(ranges(shapes[k][0])) for k in shapes} for r in range(4)})
    plan = copy_plan(src, replicated(shapes, ["file:all"]))
    for state_key, (size,) in shapes.items():
        found = [t.region for t in plan.transfers if t.src_key == state_key]
        found += [m.region for m in plan.missing if m.src_key == state_key]
        assert min(volume(region) for region in found) > 0
        assert sum(volume(region) for region in found) == size
        assert disjoint(src.shapes[state_key], found) == (Flat(0, size),)
    for t in plan.transfers:
        held = src.parts(t.src_holder, t.src_key)
        shared = (common(src.shapes[t.src_key], part, t.region) for part in held)
        assert sum(volume(region) for found in shared for region in found) == volume(t.region)
    assert plan.transfers == tuple(sorted((t for r in src.holders for t in plan.out_of(r)), key=in_order))


def ranges(size: int) -> st.SearchStrategy[tuple[Flat, ...]]:
    some = st.tuples(*[st.integers(0, size)] * 2).map(lambda ends: (Flat(min(ends), max(ends)),))
    return st.one_of(st.just((Flat(0, size),)), some)


def in_order(transfer: Transfer) -> tuple[str, StateKey, tuple[bool, Region]]:
    return transfer.dst_holder, transfer.dst_key, order_of(transfer.region)


def test_replicas_of_shards_read_evenly() -> None:
    shapes = {key(f"layer{index}"): (640, 128) for index in range(20)}
    src = cut_rows(shapes, parts=4, replicas=3)
    plan = copy_plan(src, replicated(shapes, ["file:all"]))
    load = Counter({holder: sum(t.size_bytes for t in plan.out_of(holder)) for holder in src.holders})
    assert sum(load.values()) == 20 * 640 * 128 * 4
    assert max(load.values()) <= 1.05 * sum(load.values()) / 12


def test_what_only_some_hold_is_made_up_for_by_the_others() -> None:
    shapes = {key("shared"): (1 << 20,), key("own"): (1 << 18,)}
    full, part = {k: (whole(shape),) for k, shape in shapes.items()}, {key("shared"): (whole((1 << 20,)),)}
    layout = Layout(shapes, {rank_holder(0): full, rank_holder(1): part})
    plan = copy_plan(layout, replicated(shapes, ["file:all"]))
    sizes = [sum(t.size_bytes for t in plan.out_of(rank_holder(r))) for r in range(2)]
    assert sizes == [5 << 19, 5 << 19]
