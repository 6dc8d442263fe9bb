"""Pauses between tries.

Without it something that is away could be asked ever more often by everybody at once, or never again.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainctl.core.pauses import doubled_s, drawn_s


@pytest.mark.parametrize(("doublings", "pause_s"), [(0, 0.5), (1, 1.0), (3, 4.0), (4, 5.0), (10**9, 5.0)])
def test_a_pause_doubles_up_to_its_bound(doublings: int, pause_s: float) -> None:
    assert doubled_s(0.5, doublings, 5.0) == pause_s


@given(st.floats(0, 1e6), st.floats(0, 1, exclude_max=True))
def test_what_is_drawn_is_at_least_half(pause_s: float, chance: float) -> None:
    assert pause_s / 2 <= drawn_s(pause_s, chance) <= pause_s
    assert drawn_s(pause_s, 0.0) == pause_s / 2
