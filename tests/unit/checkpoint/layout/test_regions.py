"""Without it the arithmetic of regions could skip or double elements, and weights be wrong in some layouts only."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainctl.checkpoint.layout.region import (
    Box,
    Flat,
    check_region,
    flat_to_boxes,
    intersect,
    merge_runs,
    offset_in,
    region_to_runs,
    volume,
    whole,
)
from trainctl.core.errors import PlanError
from unit.checkpoint.layouts import elements, regions, shapes


@given(st.data())
def test_a_region_as_runs_covers_its_elements_once_in_order(data: st.DataObject) -> None:
    shape = data.draw(shapes)
    region = data.draw(regions(shape))
    runs = list(region_to_runs(shape, region))
    listed = [i for run in runs for i in range(run.start, run.stop)]
    assert listed == sorted(elements(shape, region))
    assert len(listed) == volume(region)


@given(st.data())
def test_a_flat_range_as_boxes_covers_its_elements_once(data: st.DataObject) -> None:
    shape = data.draw(shapes)
    start, stop = sorted(data.draw(st.tuples(*[st.integers(0, math.prod(shape))] * 2)))
    boxes = flat_to_boxes(shape, Flat(start, stop))
    listed = [i for box in boxes for i in sorted(elements(shape, box))]
    assert listed == list(range(start, stop))
    assert len(boxes) <= max(1, 2 * len(shape) - 1)


@given(st.data())
def test_intersections_match_the_elements(data: st.DataObject) -> None:
    shape = data.draw(shapes)
    a, b = data.draw(regions(shape)), data.draw(regions(shape))
    if type(a) is not type(b):
        with pytest.raises(PlanError):
            intersect(a, b)
        return
    common = intersect(a, b)
    assert (elements(shape, common) if common else set()) == elements(shape, a) & elements(shape, b)


@given(st.data())
def test_position_inside_a_region_counts_its_elements(data: st.DataObject) -> None:
    shape = data.draw(shapes)
    region = data.draw(regions(shape))
    for expected, element in enumerate(sorted(elements(shape, region))):
        assert offset_in(shape, region, element) == expected


@given(st.data())
def test_merged_runs_are_the_union(data: st.DataObject) -> None:
    runs = [Flat(*sorted(pair)) for pair in data.draw(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30))))]
    merged = merge_runs(runs)
    assert {i for r in merged for i in range(r.start, r.stop)} == {i for r in runs for i in range(r.start, r.stop)}
    assert all(a.stop < b.start for a, b in itertools.pairwise(merged))


def test_a_scalar_is_one_element_and_an_empty_tensor_none() -> None:
    assert whole(()) == Flat(0, 1)
    assert flat_to_boxes((), Flat(0, 1)) == (Box((), ()),)
    assert list(region_to_runs((), Box((), ()))) == [Flat(0, 1)]
    assert whole((3, 0)) == Flat(0, 0)
    assert flat_to_boxes((3, 0), Flat(0, 0)) == ()


@pytest.mark.parametrize("region", [Flat(0, 7), Flat(-1, 2), Box((1, 0), (2, 3)), Box((0,), (2,))])
def test_a_region_outside_the_tensor_is_refused(region: Box | Flat) -> None:
    with pytest.raises(PlanError, match=r"inside a tensor of shape \[2, 3\]"):
        check_region((2, 3), region)
