"""How long to wait before the next try: pauses that double up to a bound, and are drawn. Pure."""

from __future__ import annotations

_MOST_DOUBLINGS = 60
"""Further ones reach any bound, or would not fit a number."""


def doubled_s(first_s: float, doublings: int, longest_s: float) -> float:
    """``first_s``, doubled so many times, but no longer than ``longest_s``."""
    return min(longest_s, first_s * 2.0 ** min(doublings, _MOST_DOUBLINGS))


def drawn_s(pause_s: float, chance: float) -> float:
    """Between half of a pause and all of it, so that those who failed together do not come back together.

    Args:
        pause_s: the longest.
        chance: from 0 up to 1, another one each time.
    """
    return pause_s * (0.5 + 0.5 * chance)
