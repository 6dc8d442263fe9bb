"""What a copy plan has to come to, element by element."""

from __future__ import annotations

from collections import Counter

from trainctl.checkpoint.layout.copy_plan import copy_plan, uncovered
from trainctl.checkpoint.layout.key import StateKey
from trainctl.checkpoint.layout.layout import Layout
from trainctl.checkpoint.layout.region import one_run
from unit.checkpoint.layouts import elements


def held(layout: Layout, holder: str, state_key: StateKey) -> set[int]:
    regions = layout.holders.get(holder, {}).get(state_key, ())
    return {i for region in regions for i in elements(layout.shapes[state_key], region)}


def assert_copies(src: Layout, dst: Layout, failed: frozenset[str]) -> None:
    """What a destination lacks comes once, from one that has it and did not fail; or is missing."""
    plan = copy_plan(src, dst, failed=failed)
    copied: dict[tuple[str, StateKey], Counter[int]] = {}
    for t in plan.transfers:
        assert t.src_holder not in failed
        assert t.src_holder != t.dst_holder
        moved = elements(src.shapes[t.src_key], t.region)
        assert moved <= held(src, t.src_holder, t.src_key)
        assert one_run(src.shapes[t.src_key], t.region) == t.region
        copied.setdefault((t.dst_holder, t.dst_key), Counter()).update(moved)
    missing = {(m.dst_holder, m.dst_key, i) for m in plan.missing for i in elements(dst.shapes[m.dst_key], m.region)}
    for holder, keys in dst.holders.items():
        for state_key in keys:
            usable = {h for h in src.holders if h not in failed}
            own = held(src, holder, state_key) if holder in usable else set()
            anywhere = set().union(*(held(src, h, state_key) for h in usable))
            want = held(dst, holder, state_key)
            counts = copied.get((holder, state_key), Counter())
            assert counts == Counter((want - own) & anywhere)
            assert {i for i in want if (holder, state_key, i) in missing} == want - anywhere
    assert uncovered(dst, src, failed=failed) == plan.missing
