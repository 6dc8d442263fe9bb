"""Which earlier states of a job those descend from that it trains on now. Pure.

A roll-back begins a new lineage. What was saved of the lineage before still counts as far as it was gone back to: where
the state that was chosen turns out to be unusable, an older one of the same descent takes its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

_KEPT = 32
"""Older lineages than these have nothing in anybody's memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ancestor:
    """A lineage that was left.

    Attributes:
        lineage: which.
        step: the newest of its steps that what came after it descends from.
    """

    lineage: int
    step: int


def gone_back(ancestors: Sequence[Ancestor], *, lineage: int, step: int) -> tuple[Ancestor, ...]:
    """The ancestors of a lineage that begins with ``step`` of ``lineage``, or of one of its ancestors."""
    older = [replace(one, step=min(one.step, step)) for one in ancestors]
    return (*older, Ancestor(lineage=lineage, step=step))[-_KEPT:]


def descends(ancestors: Sequence[Ancestor], current: int, *, lineage: int, step: int) -> bool:
    """Whether what lineage ``current`` holds came from the state of ``step`` in ``lineage``, or that is its own."""
    return lineage == current or any(one.lineage == lineage and step <= one.step for one in ancestors)
