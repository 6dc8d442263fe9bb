"""Deals the saves of one rank: what it writes is found anew only when the layout of the state has changed.

Training waits while a save is dealt, and all saves of a run are alike but for the step. The whole layout is compared,
every rank's regions of every tensor: a plan for another layout would lose a part of the state without a word. What is
kept is layout only, names and ranges, never a tensor.
"""

from __future__ import annotations

from trainctl.checkpoint.layout.layout import Layout
from trainctl.checkpoint.save.saving import Portion, assign


class Dealer:
    """Keeps the newest; one for each place that a rank saves to.

    Args:
        holder: the rank, as it is named in the layouts.

    Attributes:
        planned: how often a plan was made.
    """

    def __init__(self, holder: str) -> None:
        self.planned = 0
        self._holder = holder
        self._layout: Layout | None = None
        self._portion: Portion = {}

    def portion(self, layout: Layout) -> Portion:
        """What the rank writes, as ``assign`` gives it.

        Raises:
            PlanError: as ``assign``.
        """
        if self._layout is None or not _alike(self._layout, layout):
            self._portion = assign(layout)[self._holder]
            self.planned += 1
        elif self._layout is not layout:
            now = dict(zip(self._layout.placements, layout.placements, strict=True))
            self._portion = {now[key]: regions for key, regions in self._portion.items()}
        self._layout = layout
        return self._portion


def _alike(a: Layout, b: Layout) -> bool:
    """Whether all but the versions in the keys (their last field) is equal, and in the same order."""
    if len(a.placements) != len(b.placements) or [*a.holders] != [*b.holders]:
        return False
    compared: dict[tuple[int, int], bool] = {}
    for (key, placement), (other_key, other) in zip(a.placements.items(), b.placements.items(), strict=True):
        pair = id(placement), id(other)
        if pair not in compared:
            compared[pair] = placement == other
        if not compared[pair] or key[:-1] != other_key[:-1]:
            return False
    return True
