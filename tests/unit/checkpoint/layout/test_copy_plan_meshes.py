"""Copy plans between meshes, boxes and flat shards: every element comes once, and is the right one.

Without it a change of the mesh could lose or double elements.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainctl.checkpoint.layout.combine import Cast, Term, WeightedSum
from trainctl.checkpoint.layout.copy_plan import copy_plan
from trainctl.checkpoint.layout.key import StateKey
from trainctl.checkpoint.layout.layout import Layout
from trainctl.checkpoint.layout.region import Box, Flat, Region, Shape
from trainctl.checkpoint.load import loading
from trainctl.core.errors import InternalError
from unit.checkpoint.copied import assert_copies
from unit.checkpoint.layouts import elements, key, shape_tables
from unit.checkpoint.ranks import full_values, plain, rank_state, save


@st.composite
def meshes(draw: st.DrawFn, shapes_of: Mapping[StateKey, Shape], prefix: str) -> Layout:
    """Each axis of a mesh cuts one dim of a tensor, as ``torch.chunk`` does, or replicates; or cuts what is flat."""
    sizes = draw(st.lists(st.integers(1, 3), min_size=2, max_size=3))
    flat = draw(st.booleans())
    cuts: dict[StateKey, list[int]] = {}
    for state_key, shape in shapes_of.items():
        dims = st.integers(-1, 0 if flat else len(shape) - 1)
        cuts[state_key] = [draw(dims) for _ in sizes]
    holders: dict[str, dict[StateKey, tuple[Region, ...]]] = {}
    for number, place in enumerate(itertools.product(*map(range, sizes))):
        holders[f"{prefix}:{number}"] = {
            state_key: (_region(shape, cuts[state_key], sizes, place, flat=flat),)
            for state_key, shape in shapes_of.items()
        }
    return Layout(shapes_of, holders)


def _region(shape: Shape, dims: list[int], sizes: list[int], place: tuple[int, ...], *, flat: bool) -> Region:
    lengths, offsets = ([math.prod(shape)], [0]) if flat else (list(shape), [0] * len(shape))
    for dim, count, index in zip(dims, sizes, place, strict=True):
        if dim >= 0:
            width = -(-lengths[dim] // count)
            start = min(lengths[dim], width * index)
            lengths[dim] = min(width, lengths[dim] - start)
            offsets[dim] += start
    return Flat(offsets[0], offsets[0] + lengths[0]) if flat else Box(tuple(offsets), tuple(lengths))


@settings(max_examples=60)
@given(st.data())
def test_from_mesh_to_mesh_every_element_comes_once_whoever_failed(data: st.DataObject) -> None:
    table = data.draw(shape_tables())
    src, dst = data.draw(meshes(table, data.draw(st.sampled_from(["rank", "file"])))), data.draw(meshes(table, "rank"))
    failed = frozenset(data.draw(st.sets(st.sampled_from(sorted(src.holders)))))
    assert_copies(src, dst, failed)


@settings(max_examples=60)
@given(st.data())
def test_what_the_transfers_say_brings_every_value_where_it_belongs(data: st.DataObject) -> None:
    """Done with arrays, with a cast and a weighted sum on the way."""
    first, second, cast, total = key("a"), key("b"), key("a", dtype="F64"), key("sum")
    shape = data.draw(st.sampled_from([(4, 5), (3, 2, 4), (7,), ()]))
    src = data.draw(meshes({first: shape, second: shape}, "rank"))
    dst = data.draw(meshes({first: shape, cast: shape, total: shape}, "rank"))
    size = math.prod(shape)
    values = {first: np.arange(1, size + 1) * 4.0, second: np.arange(1, size + 1) * -100.0}
    terms = {
        cast: (Term(first, Cast("F64")),),
        total: (Term(second, WeightedSum(0.75)), Term(first, WeightedSum(0.25))),
    }
    expected = {first: values[first], cast: values[first], total: values[first] / 4 + values[second] * 0.75}
    made = {
        (holder, state_key): np.where(_held(src, holder, state_key, size), values.get(state_key, 0.0), 0.0)
        for holder in dst.holders
        for state_key in expected
    }
    plan = copy_plan(src, dst, terms=terms)
    assert plan.missing == ()
    for t in plan.transfers:
        part = sorted(elements(shape, t.region))
        assert _held(src, t.src_holder, t.src_key, size)[part].all()
        weight = t.combine.weight if isinstance(t.combine, WeightedSum) else 1.0
        made[t.dst_holder, t.dst_key][part] += weight * values[t.src_key][part]
    for (holder, state_key), found in made.items():
        wanted = _held(dst, holder, state_key, size)
        assert np.array_equal(found[wanted], expected[state_key][wanted])


def _held(layout: Layout, holder: str, state_key: StateKey, size: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    found = np.zeros(size, dtype=np.bool_)
    for region in layout.holders.get(holder, {}).get(state_key, ()):
        found[sorted(elements(layout.shapes[state_key], region))] = True
    return found


def test_a_load_refuses_a_sum_instead_of_leaving_it_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = full_values()
    ref = save(tmp_path, values)
    monkeypatch.setattr(
        loading,
        "match",
        lambda saved, wanted, **named: {k: (Term(k, WeightedSum(0.5)), Term(k, WeightedSum(0.5))) for k in wanted},
    )
    with pytest.raises(InternalError, match="a weighted sum was planned"):
        loading.load(ref, rank_state(values, plain(values, 1), "rank:0", blank=True))
