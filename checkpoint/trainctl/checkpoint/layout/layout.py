"""A layout: which holder (worker, file, host memory) holds which regions of which tensors."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping

from trainctl.checkpoint.layout.key import StateKey
from trainctl.checkpoint.layout.placement import Placement
from trainctl.checkpoint.layout.region import Region, Shape, check_region, whole
from trainctl.core.errors import PlanError

Held = Mapping[StateKey, tuple[Region, ...]]
"""What one holder has of each key."""


def rank_holder(global_rank: int) -> str:
    """Holder name of a worker: ``rank:3``."""
    return f"rank:{global_rank}"


def file_holder(path: str) -> str:
    """Holder name of a file of a checkpoint attempt: ``file:data/w00003-000.safetensors``."""
    return f"file:{path}"


def host_holder(node: str) -> str:
    """Holder name of a node's memory: ``host:node-1``."""
    return f"host:{node}"


class Layout:
    """Immutable; checked when made. Equal placements are kept once, so that plans are made once for all their keys.

    Attributes:
        placements: who holds what of every key.
        shapes: global shape of every key.
        holders: holder name -> key -> the regions it holds (they may overlap); made when looked at.

    Raises:
        PlanError: a key has no shape, or a region leaves its tensor; names holder and key.
    """

    def __init__(self, shapes: Mapping[StateKey, Shape], holders: Mapping[str, Held]) -> None:
        held: dict[StateKey, dict[str, tuple[Region, ...]]] = {key: {} for key in shapes}
        for holder, keys in holders.items():
            for key, regions in keys.items():
                if key not in held:
                    raise PlanError(f"{holder} holds {key}: expected a shape for it in the layout, found none")
                held[key][holder] = regions
        self._keep({key: Placement(tuple(shapes[key]), regions) for key, regions in held.items()}, holders)

    @classmethod
    def placed(cls, placements: Mapping[StateKey, Placement], holders: Iterable[str] = ()) -> Layout:
        """The layout given by key, fast where keys share a placement; ``holders`` may name some that hold nothing.

        Raises:
            PlanError: a region leaves its tensor; names holder and key.
        """
        layout = cls.__new__(cls)
        layout._keep(placements, holders)
        return layout

    def _keep(self, placements: Mapping[StateKey, Placement], holders: Iterable[str]) -> None:
        by_value: dict[Placement, Placement] = {}
        # Hashing looks at every region: once for each object.
        by_identity: dict[int, Placement] = {}
        for key, placement in placements.items():
            if id(placement) not in by_identity:
                if placement not in by_value:
                    _check(key, placement)
                by_identity[id(placement)] = by_value.setdefault(placement, placement)
        self.placements: Mapping[StateKey, Placement] = {key: by_identity[id(p)] for key, p in placements.items()}
        self.shapes: Mapping[StateKey, Shape] = {key: p.shape for key, p in placements.items()}
        names = itertools.chain(holders, *(placement.regions for placement in by_value))
        self.holders: Mapping[str, Held] = _ByHolder(names, self.placements)

    def __repr__(self) -> str:
        return f"Layout({self.shapes}, {dict(self.holders)})"

    def only(self, holders: Collection[str]) -> Layout:
        """The layout with some of the holders."""
        cut: dict[int, Placement] = {}
        for placement in self.placements.values():
            if id(placement) not in cut:
                held = {name: regions for name, regions in placement.regions.items() if name in holders}
                cut[id(placement)] = Placement(placement.shape, held)
        return Layout.placed({key: cut[id(p)] for key, p in self.placements.items()}, holders)

    def parts(self, holder: str, key: StateKey) -> tuple[Region, ...]:
        """What ``holder`` holds of ``key`` as disjoint regions, flat where they can be; empty if nothing."""
        placement = self.placements.get(key)
        return placement.parts_of(holder) if placement is not None else ()


class _ByHolder(Mapping[str, Held]):
    """The same by holder; nothing is kept twice."""

    def __init__(self, holders: Iterable[str], placements: Mapping[StateKey, Placement]) -> None:
        self._names = dict.fromkeys(holders)
        self._placements = placements

    def __getitem__(self, holder: str) -> Held:
        if holder not in self._names:
            raise KeyError(holder)
        return {key: p.regions[holder] for key, p in self._placements.items() if holder in p.regions}

    def __contains__(self, holder: object) -> bool:
        return holder in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def replicated(shapes: Mapping[StateKey, Shape], holders: Iterable[str]) -> Layout:
    """The layout in which every holder holds every tensor whole (plain data parallelism)."""
    names = tuple(holders)
    alike = {shape: Placement(shape, dict.fromkeys(names, (whole(shape),))) for shape in map(tuple, shapes.values())}
    return Layout.placed({key: alike[tuple(shape)] for key, shape in shapes.items()}, names)


def _check(key: StateKey, placement: Placement) -> None:
    for holder, regions in placement.regions.items():
        for region in regions:
            try:
                check_region(placement.shape, region)
            except PlanError as error:
                raise PlanError(f"{holder}, {key}: {error}") from None
