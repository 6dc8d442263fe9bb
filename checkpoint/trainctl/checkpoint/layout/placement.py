"""A placement: who holds which regions of a tensor of one shape. Thousands of keys share a few of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from trainctl.checkpoint.layout.grid import disjoint
from trainctl.checkpoint.layout.region import Flat, Region, Shape


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
    def is_flat(self) -> bool:
        """Whether everybody holds flat ranges only."""
        return all(isinstance(part, Flat) for holder in self.regions for part in self.parts_of(holder))

    def parts_of(self, holder: str) -> tuple[Region, ...]:
        """What one holder has as disjoint regions, flat where they can be; empty if nothing."""
        if holder not in self._parts:
            self._parts[holder] = disjoint(self.shape, self.regions.get(holder, ()))
        return self._parts[holder]

    @cached_property
    def _parts(self) -> dict[str, tuple[Region, ...]]:
        """Made when looked at."""
        return {}
