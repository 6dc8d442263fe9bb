"""Layouts cut down to some of their holders. Without it a recovery could copy to ranks that have all they need."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trainctl.checkpoint.layout.key import StateKey
from trainctl.checkpoint.layout.layout import Layout
from trainctl.checkpoint.layout.region import Flat
from unit.checkpoint.layouts import key, layouts, shapes

SHAPES = st.dictionaries(st.sampled_from("abc").map(key), shapes, min_size=1)


@given(st.data())
def test_the_others_are_gone_and_nothing_else_changed(data: st.DataObject) -> None:
    of: dict[StateKey, tuple[int, ...]] = data.draw(SHAPES)
    layout = data.draw(layouts(of, "rank"))
    chosen = data.draw(st.sets(st.sampled_from(sorted(layout.holders))))
    cut = layout.only(chosen)
    assert set(cut.holders) == chosen
    assert cut.shapes == layout.shapes
    for holder in layout.holders:
        for state_key in of:
            expected = layout.parts(holder, state_key) if holder in chosen else ()
            assert cut.parts(holder, state_key) == expected


def test_what_lay_alike_still_does() -> None:
    same = {key(name): (Flat(0, 4),) for name in "ab"}
    layout = Layout(dict.fromkeys(same, (4,)), {"rank:0": same, "rank:1": same})
    first, second = layout.only(["rank:1"]).placements.values()
    assert first is second
