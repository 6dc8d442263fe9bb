"""What one placement wants from another: found once for all keys that lie in the same way on both sides.

Both sides are cut into cells. What one holder gets or sends is then found by bisection, without looking at what the
others do: between layouts that have nothing in common, such as flat ranges and rows, all of it would be millions of
ranges.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from trainctl.checkpoint.layout.coverage import Coverage
from trainctl.checkpoint.layout.grid import Cell, Holders
from trainctl.checkpoint.layout.region import Region, whole


class Want(NamedTuple):
    """A region that a destination lacks, and whom it may come from: nobody, where it is missing."""

    dst_holder: str
    region: Region
    sources: Holders


class Pairing:
    """What each destination has to get from elsewhere.

    Args:
        src: what there is.
        dst: what is wanted.
        in_place: what a destination already holds is not wanted; otherwise it copies that from itself.

    Attributes:
        shape: of the tensors.
        is_flat: whether all there is and all that is wanted are flat ranges.
        destinations: who wants something, in order of names.
    """

    def __init__(self, src: Coverage, dst: Coverage, *, in_place: bool) -> None:
        self.shape = dst.placement.shape
        self.is_flat = src.placement.is_flat and dst.placement.is_flat
        self.destinations = sorted(dst.placement.regions)
        self._src = src
        self._dst = dst
        self._in_place = in_place

    def into(self, holder: str) -> Iterator[Want]:
        """What one destination wants."""
        for part in self._dst.placement.parts_of(holder):
            yield from self._wants(holder, self._src.cut(part))

    def out_of(self, source: str) -> Iterator[Want]:
        """What any destination wants and may get from ``source``; a region may come in parts."""
        for cell in self._src.of.get(source, ()):
            own = self._src.members[cell.holders]
            for region, holders in self._dst.cut(cell.region):
                for holder in holders:
                    if holder not in own:
                        yield Want(holder, region, cell.holders)
                    elif not self._in_place and holder == source:
                        yield Want(holder, region, (source,))

    def missing(self) -> Iterator[Want]:
        """What nobody has."""
        if self._src.covers(whole(self._dst.placement.shape)):
            return
        for holder in self.destinations:
            if not all(self._src.covers(part) for part in self._dst.placement.parts_of(holder)):
                yield from (want for want in self.into(holder) if not want.sources)

    @property
    def has_replicas(self) -> bool:
        """Whether something that is wanted may come from several."""
        return self._src.has_replicas

    def sizes(self) -> Iterator[tuple[int, Holders]]:
        """Without replicas: the elements of all that is wanted and somebody has, and who that is.

        What several want alike is looked at once.
        """
        for region, wanting in self._dst.cells:
            members = self._dst.members[wanting]
            for size, sources in self._src.sizes(region):
                if sources:
                    has_it = self._in_place and sources[0] in members
                    yield size * (len(wanting) - has_it), sources

    def all(self) -> Iterator[Want]:
        """What all want, in order of names; what several want alike is cut once."""
        known: dict[Region, tuple[Cell, ...]] = {}
        for holder in self.destinations:
            for part in self._dst.placement.parts_of(holder):
                if part not in known:
                    known[part] = tuple(self._src.cut(part))
                yield from self._wants(holder, known[part])

    def _wants(self, holder: str, cells: Iterable[Cell]) -> Iterator[Want]:
        for region, sources in cells:
            if not sources or holder not in self._src.members[sources]:
                yield Want(holder, region, sources)
            elif not self._in_place:
                yield Want(holder, region, (holder,))
