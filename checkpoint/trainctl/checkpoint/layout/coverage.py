"""Who has which elements of the tensors that lie like one placement, and who of a region that somebody asks for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

from trainctl.checkpoint.layout.grid import Cell, Grid, Holders
from trainctl.checkpoint.layout.line import Line
from trainctl.checkpoint.layout.placement import Placement
from trainctl.checkpoint.layout.region import Flat, Region, volume, whole


class Coverage:
    """A placement cut wherever the set of its usable holders changes; made when looked at.

    Attributes:
        placement: this one.
        failed: holders that do not count.
    """

    def __init__(self, placement: Placement, failed: frozenset[str]) -> None:
        self.placement = placement
        self.failed = failed

    @cached_property
    def members(self) -> Mapping[Holders, frozenset[str]]:
        """Each set of holders that occurs, for looking up."""
        return {cell.holders: frozenset(cell.holders) for cell in self.cells}

    @cached_property
    def of(self) -> Mapping[str, Sequence[Cell]]:
        """The cells of each holder."""
        found: dict[str, list[Cell]] = {}
        for cell in self.cells:
            for holder in cell.holders:
                found.setdefault(holder, []).append(cell)
        return found

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Disjoint; what nobody holds is left out."""
        return self._cut.cells

    def cut(self, region: Region) -> Iterator[Cell]:
        """A region in the cells that it meets; where nobody holds anything, the holders are empty."""
        return self._cut.cut(region)

    def sizes(self, region: Region) -> Iterator[tuple[int, Holders]]:
        """How many elements ``cut`` gives of which holders."""
        return self._cut.sizes(region)

    @cached_property
    def has_replicas(self) -> bool:
        """Whether several hold the same anywhere."""
        return any(len(holders) > 1 for holders in self.members)

    def covers(self, region: Region) -> bool:
        """Whether somebody has every element of it."""
        return self._full or all(cell.holders for cell in self.cut(region))

    @cached_property
    def _full(self) -> bool:
        return sum(volume(cell.region) for cell in self.cells) == volume(whole(self.placement.shape))

    @cached_property
    def _cut(self) -> Line | Grid:
        shape = self.placement.shape
        held = [
            (region, holder)
            for holder in self.placement.regions
            if holder not in self.failed
            for region in self.placement.parts_of(holder)
        ]
        runs = [(region, holder) for region, holder in held if isinstance(region, Flat)]
        return Line(shape, runs) if len(runs) == len(held) else Grid(shape, held)
