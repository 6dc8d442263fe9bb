"""Which source of a mixture stands at a position: shares exact to within one sample over every prefix, computed.

Weights become whole parts of a cycle. Within the cycle the sources are dealt by the chairman assignment, whose counts
stay within 1 - 1/(2k - 2) of the ideal ones for k sources; at the end of a cycle they are the ideal ones. So the source
at position ``p``, and how many of its samples came before, follow from ``p`` modulo the cycle: no state, O(1).

Source: Tijdeman, "The chairman assignment problem" (Discrete Mathematics 32, 1980), section 2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate

from trainctl.parallel.plan.sample_order import Order

MAX_CYCLE = 1 << 16
"""Longest cycle; weights that need a longer one are rounded to this many parts."""


def parts(weights: Sequence[float]) -> tuple[int, ...]:
    """Whole parts in the ratio of the weights as they are written in decimal: ``(0.7, 0.2, 0.1)`` is ``(7, 2, 1)``.

    Ratios that would need more than ``MAX_CYCLE`` parts are rounded to that many by largest remainder; a part may then
    become 0.
    """
    exact = [Fraction(repr(float(weight))) for weight in weights]
    unit = math.lcm(*(weight.denominator for weight in exact))
    whole = [int(weight * unit) for weight in exact]
    divisor = math.gcd(*whole)
    whole = [part // divisor for part in whole]
    if sum(whole) <= MAX_CYCLE:
        return tuple(whole)
    ideal = [weight * MAX_CYCLE / sum(exact) for weight in exact]
    floors = [math.floor(share) for share in ideal]
    by_remainder = sorted(range(len(ideal)), key=lambda source: floors[source] - ideal[source])
    for source in by_remainder[: MAX_CYCLE - sum(floors)]:
        floors[source] += 1
    return tuple(floors)


def deal_cycle(cycle_parts: Sequence[int]) -> tuple[int, ...]:
    """The source at each position of one cycle.

    At position n (from 1) every source with ``n * share - count >= 1 / (2k - 2)`` is eligible; the one whose next
    sample is due first gets it. All in integers, in units of ``1 / (cycle * (2k - 2))``.
    """
    count, cycle = len(cycle_parts), sum(cycle_parts)
    if count == 1:
        return (0,) * cycle
    scale = 2 * count - 2
    lead = [0] * count  # scale * (n * part - cycle * given): how far the source is behind its share
    dealt: list[int] = []
    for _ in range(cycle):
        lead = [behind + scale * part for behind, part in zip(lead, cycle_parts, strict=True)]
        eligible = [source for source in range(count) if cycle_parts[source] and lead[source] >= cycle]
        first = eligible[0]
        for source in eligible[1:]:  # due: ((scale - 1) * cycle - lead) / part, compared without dividing
            due, due_first = (scale - 1) * cycle - lead[source], (scale - 1) * cycle - lead[first]
            if due * cycle_parts[first] < due_first * cycle_parts[source]:
                first = source
        lead[first] -= scale * cycle
        dealt.append(first)
    return tuple(dealt)


@dataclass(frozen=True, slots=True)
class MixtureOrder:
    """The endless stream of samples of a mixture; ids of source s lie behind those of the sources before it.

    Attributes:
        orders: of each source, over its own ids ``0..size - 1``; each goes through its own epochs.
        sizes: samples of each source.
        cycle: the source at each position of a cycle.
    """

    orders: tuple[Order, ...]
    sizes: tuple[int, ...]
    cycle: tuple[int, ...]
    _before: tuple[int, ...]
    _in_cycle: tuple[int, ...]
    _offsets: tuple[int, ...]

    @classmethod
    def of(cls, orders: Sequence[Order], sizes: Sequence[int], weights: Sequence[float]) -> MixtureOrder:
        """Mixes sources by weight."""
        cycle_parts = parts(weights)
        cycle = deal_cycle(cycle_parts)
        given = [0] * len(sizes)
        before: list[int] = []
        for source in cycle:
            before.append(given[source])
            given[source] += 1
        offsets = tuple(accumulate(sizes, initial=0))[:-1]
        return cls(tuple(orders), tuple(sizes), cycle, tuple(before), cycle_parts, offsets)

    def source(self, position: int) -> tuple[int, int]:
        """The source at ``position``, and how many of its samples stand before."""
        turn, place = divmod(position, len(self.cycle))
        source = self.cycle[place]
        return source, turn * self._in_cycle[source] + self._before[place]

    def longest_prefix(self) -> int:
        """Positions from the beginning for which no source needs more than its ``sizes``."""
        cycle, shares = len(self.cycle), zip(self.sizes, self._in_cycle, strict=True)
        return min(size * cycle // part for size, part in shares if part)  # of n, a source has at most ceil(n * share)

    def ids(self, position: int, count: int) -> tuple[int, ...]:
        """The samples at ``position`` to ``position + count - 1``."""
        ids: list[int] = []
        for place in range(position, position + count):
            source, nth = self.source(place)
            ids.append(self._offsets[source] + self.orders[source].ids(nth, 1)[0])
        return tuple(ids)
