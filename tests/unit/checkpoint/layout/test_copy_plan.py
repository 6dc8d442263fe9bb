"""Without it a joiner could get elements twice, from the wrong rank or not at all, and train on with garbage."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainctl.checkpoint.layout.combine import Cast, Term, WeightedSum
from trainctl.checkpoint.layout.copy_plan import copy_plan
from trainctl.checkpoint.layout.key import StateKey, StateVersion
from trainctl.checkpoint.layout.layout import Layout, rank_holder, replicated
from trainctl.checkpoint.layout.placement import Placement
from trainctl.checkpoint.layout.region import Box, Flat, order_of, volume
from trainctl.core.errors import PlanError
from unit.checkpoint.copied import assert_copies, held
from unit.checkpoint.layouts import key, layouts, shape_tables
from unit.checkpoint.layouts import shapes as shapes_of_tensors


@given(st.data())
def test_every_wanted_element_is_copied_once_or_reported_missing(data: st.DataObject) -> None:
    table = data.draw(shape_tables())
    src = data.draw(layouts(table, data.draw(st.sampled_from(["rank", "file"]))))
    dst = data.draw(layouts(table, "rank"))
    failed = frozenset(data.draw(st.sets(st.sampled_from(sorted(src.holders)))))
    assert_copies(src, dst, failed)


@given(st.data())
def test_a_layout_gets_from_itself_only_what_failed_holders_lost(data: st.DataObject) -> None:
    table = data.draw(shape_tables())
    src = data.draw(layouts(table, "rank"))
    again = Layout(table, src.holders)
    failed = data.draw(st.sampled_from(sorted(src.holders)))
    whole_plan, plan = copy_plan(src, again), copy_plan(src, again, failed=frozenset({failed}))
    assert (whole_plan.transfers, whole_plan.missing) == ((), ())
    assert whole_plan.into(failed) == whole_plan.out_of(failed) == ()
    got = sum(volume(t.region) for t in plan.transfers) + sum(volume(m.region) for m in plan.missing)
    assert got == sum(len(held(src, failed, state_key)) for state_key in table)
    assert {t.dst_holder for t in plan.transfers} <= {failed}


@pytest.mark.parametrize(
    "other",
    [
        key("b"),
        key("a", "exp_avg"),
        key("a")._replace(dtype="BF16"),
        key("a")._replace(instance="island-7"),
        key("a")._replace(version=StateVersion(1, 99)),
        key("a")._replace(version=StateVersion(2, key("a").version.step)),
    ],
    ids=["name", "kind", "dtype", "instance", "step", "lineage"],
)
def test_only_who_has_the_same_by_its_full_key_is_a_replica(other: StateKey) -> None:
    rank = [rank_holder(number) for number in range(3)]
    wanted = Layout({key("a"): (8,)}, {rank[2]: {key("a"): (Flat(0, 8),)}})
    alone = Layout({other: (8,)}, {rank[0]: {other: (Flat(0, 8),)}})
    assert [m.dst_key for m in copy_plan(alone, wanted).missing] == [key("a")]
    shapes = {key("a"): (8,), other: (8,)}
    both = Layout(shapes, {rank[0]: {other: (Flat(0, 8),)}, rank[1]: {key("a"): (Flat(0, 8),)}})
    assert {t.src_holder for t in copy_plan(both, wanted).transfers} == {rank[1]}


COMBINES = {
    "same": (Term(key("a")),),
    "cast": (Term(key("a", "exp_avg"), Cast("F32")),),
    "sum": (Term(key("a"), WeightedSum(0.25)), Term(key("a", "exp_avg"), WeightedSum(0.75))),
}


@given(st.data())
def test_what_goes_into_and_what_comes_out_of_each_holder_are_all_transfers(data: st.DataObject) -> None:
    table = data.draw(shape_tables())
    table[key("a", "exp_avg")] = table[key("a")]
    src = data.draw(layouts(table, data.draw(st.sampled_from(["rank", "file"]))))
    dst = data.draw(layouts(table, "rank"))
    plan = copy_plan(src, dst, terms={key("a"): COMBINES[data.draw(st.sampled_from(sorted(COMBINES)))]})
    order = [(t.dst_holder, t.dst_key, t.src_key, order_of(t.region)) for t in plan.transfers]
    assert order == sorted(order)
    assert plan.transfers == tuple(t for holder in sorted(dst.holders) for t in plan.into(holder))
    for holder in (*src.holders, *dst.holders, "rank:nobody"):
        assert plan.into(holder) == tuple(t for t in plan.transfers if t.dst_holder == holder)
        assert plan.out_of(holder) == tuple(t for t in plan.transfers if t.src_holder == holder)


def by_key(layout: Layout, table: dict[StateKey, StateKey]) -> Layout:
    """The same with a placement of its own for each key, but one for keys that ``table`` maps to the same."""
    made = {
        first: Placement(layout.shapes[first], {h: held[first] for h, held in layout.holders.items() if first in held})
        for first in set(table.values())
    }
    return Layout.placed({state_key: made[table[state_key]] for state_key in layout.shapes}, layout.holders)


@given(st.data())
def test_shared_and_unshared_placements_give_equal_plans(data: st.DataObject) -> None:
    keys = {key(name): key("a") for name in "abc"} | {key("d", dtype="BF16"): key("a"), key("e"): key("e")}
    first = {key("a"): data.draw(shapes_of_tensors), key("e"): data.draw(shapes_of_tensors)}
    plans = []
    few = [data.draw(layouts(first, prefix)) for prefix in ("rank", "rank")]
    for table in (keys, {state_key: state_key for state_key in keys}):
        src, dst = (
            Layout(
                {state_key: first[alike] for state_key, alike in keys.items()},
                {h: {k: held[a] for k, a in keys.items() if a in held} for h, held in layout.holders.items()},
            )
            for layout in few
        )
        plans.append(copy_plan(src, dst))
        plans.append(copy_plan(by_key(src, table), by_key(dst, table)))
    assert len({plan.transfers for plan in plans}) == 1
    assert len({plan.missing for plan in plans}) == 1


def test_replicated_state_is_read_evenly_from_all_replicas() -> None:
    sizes = {"embed": (32000, 64), "up": (256, 64), "norm": (64,), "step": ()}
    shapes = {key(name): shape for name, shape in sizes.items()}
    src = replicated(shapes, [rank_holder(r) for r in range(4)])
    plan = copy_plan(src, replicated(shapes, ["file:all"]))
    load = Counter[str]()
    for t in plan.transfers:
        load[t.src_holder] += t.size_bytes
    assert len(load) == 4
    assert max(load.values()) <= 1.05 * sum(load.values()) / 4
    assert plan.missing == ()


def columns(shapes: dict[StateKey, tuple[int, int]], parts: int, replicas: int = 1) -> Layout:
    """Every matrix by its columns over so many ranks, several times."""
    return Layout(
        shapes,
        {
            rank_holder(rank): {
                k: (Box((0, width // parts * (rank % parts)), (rows, width // parts)),)
                for k, (rows, width) in shapes.items()
            }
            for rank in range(parts * replicas)
        },
    )


def test_replicated_columns_are_read_evenly_and_in_whole_rows() -> None:
    shapes = {key(f"w{n}"): (1024, 512) for n in range(3)}
    plan = copy_plan(columns(shapes, 2, replicas=4), replicated(shapes, ["file:all"]))
    load = Counter[str]()
    for t in plan.transfers:
        load[t.src_holder] += t.size_bytes
        assert isinstance(t.region, Box)
        assert t.region.lengths[1] == 256
    assert len(load) == 8
    assert max(load.values()) <= 1.05 * sum(load.values()) / 8
    assert len(plan.transfers) <= 2 * (3 + 4)


def test_between_columns_and_rows_or_other_columns_each_pair_has_one_box() -> None:
    shapes = {key(): (8192, 4096)}
    eight, four = columns(shapes, 8), columns(shapes, 4)
    named = {f"new:{rank}": held for rank, held in four.holders.items()}
    assert len(copy_plan(eight, Layout(shapes, named)).transfers) == 8
    rows = {f"new:{n}": {key(): (Flat(n * 2**23, (n + 1) * 2**23),)} for n in range(4)}
    for src, dst in ((eight, Layout(shapes, rows)), (Layout(shapes, rows), eight)):
        plan = copy_plan(src, dst)
        assert len(plan.transfers) == 32
        assert {t.region.lengths for t in plan.transfers if isinstance(t.region, Box)} == {(2048, 512)}


def test_a_lost_column_is_missing_as_one_box() -> None:
    shapes = {key(): (8192, 4096)}
    plan = copy_plan(columns(shapes, 8), replicated(shapes, ["new"]), failed=frozenset({"rank:3"}))
    assert [str(m) for m in plan.missing] == [
        "new has no source for [0:8192, 1536:2048] of param of w (F32, island-0, step 7)"
    ]


def test_two_joiners_are_fed_by_different_survivors() -> None:
    shapes = {key(f"layer{i}"): (1024, 64) for i in range(8)}
    src = replicated(shapes, ["rank:0", "rank:1"])
    dst = replicated(shapes, ["rank:2", "rank:3"])
    load = Counter[str]()
    for t in copy_plan(src, dst).transfers:
        load[t.src_holder] += t.size_bytes
    assert load["rank:0"] == load["rank:1"] == 8 * 1024 * 64 * 4


def test_a_holder_of_another_version_is_no_source() -> None:
    stale = StateKey("w", "param", "F32", "island-0", key().version.__class__(1, 6))
    plan = copy_plan(replicated({stale: (4,)}, ["rank:0"]), replicated({key(): (4,)}, ["rank:1"]))
    assert plan.transfers == ()
    assert str(plan.missing[0]) == "rank:1 has no source for elements 0:4 of param of w (F32, island-0, step 7)"


def test_a_failed_holder_leaves_what_only_it_had_missing() -> None:
    shapes = {key(): (10,)}
    src = Layout(shapes, {"rank:0": {key(): (Flat(0, 6),)}, "rank:1": {key(): (Flat(4, 10),)}})
    plan = copy_plan(src, replicated(shapes, ["rank:2"]), failed=frozenset({"rank:1"}))
    assert [(t.src_holder, t.region) for t in plan.transfers] == [("rank:0", Flat(0, 6))]
    assert [m.region for m in plan.missing] == [Flat(6, 10)]


def test_terms_name_other_sources_and_a_local_one_is_kept() -> None:
    half, other = key("w", dtype="BF16"), key("v")
    shapes = {key(): (4,), other: (4,)}
    src = Layout(shapes, {"rank:0": {key(): (Flat(0, 4),)}, "rank:1": {other: (Flat(0, 4),)}})
    dst = replicated({half: (4,)}, ["rank:0"])
    (cast,) = copy_plan(src, dst, terms={half: (Term(key(), Cast("BF16")),)}).transfers
    assert (cast.src_holder, cast.dst_holder, cast.combine) == ("rank:0", "rank:0", Cast("BF16"))
    average = (Term(key(), WeightedSum(0.25)), Term(other, WeightedSum(0.75)))
    plan = copy_plan(src, dst, terms={half: average})
    assert {(t.src_holder, t.combine) for t in plan.transfers} == {
        ("rank:0", WeightedSum(0.25)),
        ("rank:1", WeightedSum(0.75)),
    }


def test_different_shapes_of_one_key_are_refused() -> None:
    with pytest.raises(PlanError, match=r"expected shape \[5\], found \[4\]"):
        copy_plan(replicated({key(): (4,)}, ["rank:0"]), replicated({key(): (5,)}, ["rank:1"]))


def test_a_layout_checks_its_regions() -> None:
    with pytest.raises(PlanError, match=r"rank:0, param of w .* shape \[4\]"):
        Layout({key(): (4,)}, {"rank:0": {key(): (Flat(0, 5),)}})
    with pytest.raises(PlanError, match="expected a shape"):
        Layout({}, {"rank:0": {key(): ()}})


_SCRIPT = """
import json
from trainctl.checkpoint.layout.combine import Cast, Term, WeightedSum
from trainctl.checkpoint.layout.copy_plan import copy_plan
from trainctl.checkpoint.layout.key import StateKey, StateVersion, StateVersion
from trainctl.checkpoint.layout.layout import Layout, replicated
from trainctl.checkpoint.layout.placement import Placement
from trainctl.checkpoint.layout.region import Box, Flat
shapes = {StateKey(f"w{i}", "param", "F32", "i", StateVersion(1, 1)): (300, 100) for i in range(20)}
whole = replicated(shapes, {f"rank:{r}" for r in range(6)})
parts = Placement((300, 100), {f"rank:{r}": (Flat(3000 * r, 3000 * r + 9000),) for r in set(range(6))})
some = Placement((300, 100), {f"rank:{r}": (Flat(0, 30000),) for r in {0, 2, 4}})
mixed = Layout.placed({key: [parts, some][i % 2] for i, key in enumerate(shapes)})
wanted = replicated(shapes, {"rank:6", "rank:7"})
plans = [copy_plan(src, wanted) for src in (whole, mixed)]
small = [key for key in shapes if key.fqn in {"w1", "w2", "w3", "w11"}]
flat = Placement((12, 10), {f"rank:{r}": (Flat(20 * r, 20 * r + 60),) for r in set(range(4))})
columns = Placement((12, 10), {f"rank:{r}": (Box((0, 5 * (r % 2)), (12, 5)),) for r in {7, 3, 6}})
flats, boxes = (Layout.placed({key: placement for key in small}) for placement in (flat, columns))
other = {key._replace(dtype="BF16"): columns for key in small}
casts = {key: (Term(key._replace(dtype="F32"), Cast("BF16")),) for key in other}
sums = {key: tuple(Term(k, WeightedSum(0.5)) for k in {key, key._replace(fqn="w3")}) for key in small}
gone = frozenset({"rank:1", "rank:4", "rank:2"})
plans += [copy_plan(flats, boxes, failed=gone), copy_plan(boxes, flats)]
plans += [copy_plan(flats, Layout.placed(other), terms=casts), copy_plan(boxes, flats, failed=gone, terms=sums)]
ranks = [f"rank:{r}" for r in range(8)]
print(json.dumps([str(t) for plan in plans for t in plan.transfers + plan.missing]))
print(json.dumps([str(t) for plan in plans for r in ranks for t in plan.into(r) + plan.out_of(r)]))
"""


def test_the_plan_does_not_depend_on_the_hash_seed() -> None:
    roots = Path(__file__).parents[4]
    path = os.pathsep.join(str(roots / name) for name in ("protos", "checkpoint"))
    outputs = set()
    for seed in ("0", "1", "2", "3"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path}
        done = subprocess.run([sys.executable, "-c", _SCRIPT], env=environment, capture_output=True, check=True)
        outputs.add(done.stdout)
    assert len(outputs) == 1
    transfers, by_rank = (json.loads(line) for line in outputs.pop().splitlines())
    assert len(transfers) >= 80
    assert {*by_rank} <= {*transfers}
