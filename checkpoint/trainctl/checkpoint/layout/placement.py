"""A placement: who holds which regions of a tensor of one shape. Thousands of keys share a few of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from trainctl.checkpoint.layout.region import Flat, Region, Shape, merge_runs, region_to_runs


@dataclass(frozen=True)
class Placement:
    """Immutable; the layout that uses it checks it.

    Attributes:
        shape: global shape of the tensor.
        regions: holder -> the regions it holds (they may overlap).
    """

    shape: Shape
    regions: Mapping[str, tuple[Region, ...]]

    def __hash__(self) -> int:
        return hash((self.shape, frozenset(self.regions.items())))

    def runs_of(self, holder: str) -> tuple[Flat, ...]:
        """What one holder has as disjoint ascending ranges; empty if nothing."""
        regions = self.regions.get(holder, ())
        if len(regions) == 1 and isinstance(regions[0], Flat):
            return (regions[0],) if regions[0].volume else ()
        if holder not in self._boxes:
            runs = (run for region in regions for run in region_to_runs(self.shape, region))
            self._boxes[holder] = merge_runs(runs)
        return self._boxes[holder]

    @cached_property
    def _boxes(self) -> dict[str, tuple[Flat, ...]]:
        """Runs of what is not a range already, made when looked at."""
        return {}
