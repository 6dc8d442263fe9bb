"""What a value that came from elsewhere is, as far as a type checker needs to be told.

Without it a text could be read as a list of its letters.
"""

from __future__ import annotations

from collections import deque
from types import MappingProxyType

import pytest

from trainctl.core.plain import is_sequence, is_tuple


@pytest.mark.parametrize("value", [[], [1], (), (1,), deque[int](), range(3), b"x"])
def test_lists_of_any_kind(value: object) -> None:
    assert is_sequence(value)


@pytest.mark.parametrize("value", ["", "ab", 1, None, {}, {1}, MappingProxyType({}), iter([])])
def test_what_is_no_list(value: object) -> None:
    assert not is_sequence(value)


def test_tuples() -> None:
    assert is_tuple(())
    assert not is_tuple([])
