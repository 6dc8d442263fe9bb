"""Numbers of ranks or layers as people write them: ``0-3,7``."""

from __future__ import annotations

import itertools
from collections.abc import Sequence


def spans(values: Sequence[int]) -> str:
    """Ascending numbers, those that follow each other as one range."""
    shown: list[str] = []
    for _, run in itertools.groupby(enumerate(values), key=lambda pair: pair[1] - pair[0]):
        members = [value for _, value in run]
        shown.append(str(members[0]) if len(members) == 1 else f"{members[0]}-{members[-1]}")
    return ",".join(shown)
