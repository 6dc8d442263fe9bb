"""Random tensors and layouts for hypothesis, and the brute-force oracle that works on single elements."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

from hypothesis import strategies as st

from trainctl.checkpoint.layout.key import StateKey, StateVersion
from trainctl.checkpoint.layout.layout import Layout, rank_holder
from trainctl.checkpoint.layout.placement import Placement
from trainctl.checkpoint.layout.region import Box, Flat, Region, Shape

VERSION = StateVersion(lineage=1, step=7)


def key(fqn: str = "w", kind: str = "param", dtype: str = "F32") -> StateKey:
    return StateKey(fqn, kind, dtype, "island-0", VERSION)


def elements(shape: Shape, region: Region) -> set[int]:
    """Row-major indices in the region, found by looking at every element of the tensor."""
    if isinstance(region, Flat):
        return set(range(region.start, region.stop))
    found = set()
    for position, index in enumerate(itertools.product(*(range(d) for d in shape))):
        if all(o <= i < o + n for i, o, n in zip(index, region.offsets, region.lengths, strict=True)):
            found.add(position)
    return found


shapes = st.lists(st.integers(0, 5), max_size=4).map(tuple)


@st.composite
def regions(draw: st.DrawFn, shape: Shape) -> Region:
    if draw(st.booleans()):
        start, stop = sorted(draw(st.tuples(*[st.integers(0, math.prod(shape))] * 2)))
        return Flat(start, stop)
    ends = [sorted(draw(st.tuples(st.integers(0, d), st.integers(0, d)))) for d in shape]
    return Box(tuple(a for a, _ in ends), tuple(b - a for a, b in ends))


@st.composite
def layouts(draw: st.DrawFn, shapes_of: dict[StateKey, Shape], prefix: str, max_holders: int = 5) -> Layout:
    names = [f"{prefix}:{index}" for index in range(draw(st.integers(1, max_holders)))]
    holders: dict[str, dict[StateKey, tuple[Region, ...]]] = {}
    for name in names:
        held = {}
        for state_key, shape in shapes_of.items():
            if draw(st.booleans()):
                whole = (Flat(0, math.prod(shape)),)
                held[state_key] = draw(st.one_of(st.just(whole), st.lists(regions(shape), max_size=3).map(tuple)))
        holders[name] = held
    return Layout(shapes_of, holders)


@st.composite
def shape_tables(draw: st.DrawFn) -> dict[StateKey, Shape]:
    keys = [key("a"), key("b", dtype="BF16"), key("a", "exp_avg")]
    return {k: draw(shapes) for k in keys}


def cut_rows(shapes_of: Mapping[StateKey, Shape], *, parts: int, replicas: int = 1) -> Layout:
    """Every tensor cut along dim 0 over ``parts`` ranks (the last ones may get nothing), ``replicas`` times."""
    placements = {shape: Placement(shape, _rows(shape, parts, replicas)) for shape in set(shapes_of.values())}
    ranks = [rank_holder(rank) for rank in range(parts * replicas)]
    return Layout.placed({state_key: placements[shape] for state_key, shape in shapes_of.items()}, ranks)


def _rows(shape: Shape, parts: int, replicas: int) -> dict[str, tuple[Region, ...]]:
    step = -(-shape[0] // parts)
    held: dict[str, tuple[Region, ...]] = {}
    for rank in range(parts * replicas):
        start = min(shape[0], rank % parts * step)
        stop = min(shape[0], start + step)
        if stop > start:
            held[rank_holder(rank)] = (Box((start, *(0 for _ in shape[1:])), (stop - start, *shape[1:])),)
    return held


def cut_columns(shapes_of: Mapping[StateKey, Shape], *, parts: int) -> Layout:
    """Every tensor cut along its last dim over ``parts`` ranks (the last ones may get nothing)."""
    placements = {shape: Placement(shape, _columns(shape, parts)) for shape in set(shapes_of.values())}
    ranks = [rank_holder(rank) for rank in range(parts)]
    return Layout.placed({state_key: placements[shape] for state_key, shape in shapes_of.items()}, ranks)


def _columns(shape: Shape, parts: int) -> dict[str, tuple[Region, ...]]:
    step = -(-shape[-1] // parts)
    return {
        rank_holder(rank): (Box((*(0 for _ in shape[1:]), start), (*shape[:-1], min(step, shape[-1] - start))),)
        for rank, start in enumerate(range(0, shape[-1], step))
    }
