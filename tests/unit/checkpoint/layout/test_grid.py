"""Cells and unions of boxes and flat ranges, compared with what single elements say.

Without it coverage of a checkpoint could be judged wrong: whole with a gap, or broken though whole.
"""

from __future__ import annotations

import math
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from trainctl.checkpoint.layout.coverage import Coverage
from trainctl.checkpoint.layout.grid import Grid, Holders, union
from trainctl.checkpoint.layout.line import Line
from trainctl.checkpoint.layout.pairing import Pairing
from trainctl.checkpoint.layout.placement import Placement
from trainctl.checkpoint.layout.region import Box, Flat, Region, Shape, common, one_run, part_of, volume
from unit.checkpoint.layouts import elements, regions, shapes

deep = st.lists(st.integers(1, 4), min_size=2, max_size=4).map(tuple)


@st.composite
def placements(draw: st.DrawFn, shape: Shape) -> Placement:
    names = draw(st.lists(st.sampled_from("abcd"), min_size=1, max_size=4, unique=True))
    return Placement(shape, {name: tuple(draw(st.lists(regions(shape), max_size=3))) for name in names})


def holders_of(placement: Placement, failed: frozenset[str], element: int) -> tuple[str, ...]:
    return tuple(
        sorted(
            holder
            for holder, held in placement.regions.items()
            if holder not in failed and any(element in elements(placement.shape, region) for region in held)
        )
    )


@given(st.data())
def test_cells_say_of_every_element_who_has_it(data: st.DataObject) -> None:
    shape = data.draw(shapes)
    placement = data.draw(placements(shape))
    failed = frozenset(data.draw(st.sets(st.sampled_from("abcd"))))
    asked = one_run(shape, data.draw(regions(shape)))
    coverage = Coverage(placement, failed)
    said = (
        [(i, cell.holders) for cell in coverage.cut(asked) for i in elements(shape, cell.region)]
        if volume(asked)
        else []
    )
    assert sorted(said) == [(i, holders_of(placement, failed, i)) for i in sorted(elements(shape, asked))]
    everywhere = [(i, cell.holders) for cell in coverage.cells for i in elements(shape, cell.region)]
    found = [(i, holders_of(placement, failed, i)) for i in range(math.prod(shape))]
    assert sorted(everywhere) == [(i, holders) for i, holders in found if holders]
    assert coverage.covers(asked) == all(holders_of(placement, failed, i) for i in elements(shape, asked))
    for cell in (*coverage.cells, *(coverage.cut(asked) if volume(asked) else ())):
        assert one_run(shape, cell.region) == cell.region
    if volume(asked):
        assert list(coverage.sizes(asked)) == [(volume(cell.region), cell.holders) for cell in coverage.cut(asked)]
    for holder in "abcd":
        own = [(cell.region, cell.holders) for cell in coverage.of.get(holder, ())]
        assert own == [(cell.region, cell.holders) for cell in coverage.cells if holder in cell.holders]


@given(st.data(), st.booleans())
def test_the_sizes_of_what_is_wanted_are_those_of_the_wants(data: st.DataObject, in_place: bool) -> None:
    shape = data.draw(shapes)
    src, dst = (Coverage(data.draw(placements(shape)), frozenset()) for _ in range(2))
    pairing = Pairing(src, dst, in_place=in_place)
    if not pairing.has_replicas:
        wants = [want for want in pairing.all() if want.sources]
        expected = Counter[Holders]()
        found = Counter[Holders]()
        for want in wants:
            expected[want.sources] += volume(want.region)
        for size, sources in pairing.sizes():
            found[sources] += size
        assert +found == +expected


@given(st.data())
def test_a_union_depends_on_the_elements_alone(data: st.DataObject) -> None:
    shape = data.draw(deep)
    some = data.draw(st.lists(regions(shape), max_size=4))
    there = set().union(*(elements(shape, region) for region in some))
    found = union(shape, some)
    assert sorted(i for region in found for i in elements(shape, region)) == sorted(there)
    assert all(one_run(shape, region) == region for region in found)
    single: list[Region] = [Flat(i, i + 1) for i in data.draw(st.permutations(sorted(there)))]
    assert union(shape, single) == found
    cut = [part for region in some for part in parted(data, region)]
    assert union(shape, data.draw(st.permutations(cut))) == found


def parted(data: st.DataObject, region: Region) -> tuple[Region, ...]:
    """The region in two parts, in row-major order."""
    size = volume(region)
    at = data.draw(st.integers(0, size))
    return (*part_of(region, Flat(0, at)), *part_of(region, Flat(at, size)))


@given(st.data())
def test_a_part_of_a_region_is_that_stretch_of_its_elements(data: st.DataObject) -> None:
    shape = data.draw(shapes)
    region = data.draw(regions(shape))
    start, stop = sorted(data.draw(st.tuples(*[st.integers(0, volume(region))] * 2)))
    parts = part_of(region, Flat(start, stop))
    listed = [i for part in parts for i in sorted(elements(shape, part))]
    assert listed == sorted(elements(shape, region))[start:stop]
    assert len(parts) <= max(1, 2 * len(shape) - 1)


@given(st.data())
def test_what_two_regions_share_comes_in_order(data: st.DataObject) -> None:
    shape = data.draw(shapes)
    a, b = data.draw(regions(shape)), data.draw(regions(shape))
    listed = [i for part in common(shape, a, b) for i in sorted(elements(shape, part))]
    assert listed == sorted(elements(shape, a) & elements(shape, b))


def test_where_all_hold_ranges_it_is_cut_into_ranges_and_boxes_of_columns_into_boxes() -> None:
    rows = Coverage(Placement((4, 6), {"a": (Box((0, 0), (2, 6)),), "b": (Flat(12, 24),)}), frozenset())
    assert rows.placement.is_flat
    assert [tuple(cell) for cell in rows.cells] == [(Flat(0, 12), ("a",)), (Flat(12, 24), ("b",))]
    columns = Coverage(Placement((4, 6), {"a": (Box((0, 0), (4, 3)),), "b": (Box((0, 3), (4, 3)),)}), frozenset())
    assert not columns.placement.is_flat
    assert [tuple(cell) for cell in columns.cut(Flat(6, 24))] == [
        (Box((1, 0), (3, 3)), ("a",)),
        (Box((1, 3), (3, 3)), ("b",)),
    ]


def test_a_box_that_one_set_of_holders_has_is_not_cut() -> None:
    box = Box((1, 2), (2, 3))
    assert [tuple(cell) for cell in Line((4, 6), [(Flat(0, 24), "a")]).cut(box)] == [(box, ("a",))]
    # What others have beside it cuts the tensor, not what is asked.
    grid = Grid((4, 6), [(Box((0, 0), (4, 5)), "a"), (Box((0, 5), (2, 1)), "b"), (Box((2, 5), (2, 1)), "c")])
    assert [tuple(cell) for cell in grid.cut(box)] == [(box, ("a",))]
