"""What is told late, because nobody led or listened when it happened: when that was, by the leader's clock. Pure."""

from __future__ import annotations

LATE_S = 2.0
"""Whatever is told within this time is not worth a word about it."""


def happened_s(age_s: float, now_s: float, *, after_s: float) -> float:
    """When something happened that is told now, ``age_s`` seconds later: by no other clock than that of ``now_s``.

    Never in the future, and never before ``after_s``, when something happened that certainly went before it.
    """
    return min(max(now_s - max(0.0, age_s), after_s), now_s)
