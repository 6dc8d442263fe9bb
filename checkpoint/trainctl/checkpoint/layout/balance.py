"""Deals bytes to the replicas that hold them so that each replica reads about the same number of bytes.

Source: max-min fair sharing (Bertsekas and Gallager, "Data Networks", 6.5.2) by pouring each set's bytes over its least
loaded replicas, in turn, until all sets agree. ByteCheckpoint (NSDI '25) schedules whole tensors, longest first; ranges
may be cut anywhere, so only the amounts have to be found here.
"""

from __future__ import annotations

from collections.abc import Mapping

Sources = tuple[str, ...]
"""Holders that have the same bytes, ascending."""

_ROUNDS = 16
"""Sets of replicas that overlap agree step by step; those that do not, at once."""


def balance(wanted: Mapping[Sources, int]) -> dict[Sources, tuple[int, ...]]:
    """How many bytes every source of a set reads of those that this set has to supply.

    Args:
        wanted: bytes to read from each set of sources.
    """
    load = {source: 0 for sources in wanted for source in sources}
    shares: dict[Sources, tuple[int, ...]] = {}
    # Who has no choice comes first, so that the others can go around it.
    order = sorted(wanted, key=lambda sources: (len(sources), sources))
    for _ in range(_ROUNDS):
        changed = False
        for sources in order:
            before = shares.get(sources, (0,) * len(sources))
            for source, size in zip(sources, before, strict=True):
                load[source] -= size
            after = _fill([load[source] for source in sources], wanted[sources])
            for source, size in zip(sources, after, strict=True):
                load[source] += size
            changed |= after != before
            shares[sources] = after
        if not changed:
            break
    return shares


def _fill(levels: list[int], amount: int) -> tuple[int, ...]:
    """How much each gets when ``amount`` is poured over them: the lowest rise together."""
    rising = sorted(range(len(levels)), key=lambda index: (levels[index], index))
    below = 0
    for count, index in enumerate(rising):
        if count and levels[index] * count - below >= amount:
            rising = rising[:count]
            break
        below += levels[index]
    level, rest = divmod(amount + sum(levels[index] for index in rising), len(rising))
    got = [0] * len(levels)
    for place, index in enumerate(rising):
        got[index] = level + (place < rest) - levels[index]
    return tuple(got)
