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

    @cached_property
    def runs(self) -> Mapping[str, tuple[Flat, ...]]:
        """What each holder has as disjoint ascending ranges."""
        return {holder: self._runs_of(regions) for holder, regions in self.regions.items()}

    def _runs_of(self, regions: tuple[Region, ...]) -> tuple[Flat, ...]:
        if len(regions) == 1 and isinstance(regions[0], Flat):
            return (regions[0],) if regions[0].volume else ()
        return merge_runs(run for region in regions for run in region_to_runs(self.shape, region))
