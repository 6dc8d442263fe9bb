"""A layout: which holder (worker, file, host memory) holds which regions of which tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from trainctl.checkpoint.layout.key import StateKey
from trainctl.checkpoint.layout.region import Flat, Region, Shape, check_region, merge_runs, region_to_runs, whole
from trainctl.core.errors import PlanError


def rank_holder(global_rank: int) -> str:
    """Holder name of a worker: ``rank:3``."""
    return f"rank:{global_rank}"


def file_holder(path: str) -> str:
    """Holder name of a file of a checkpoint attempt: ``file:data/w00003-000.safetensors``."""
    return f"file:{path}"


def host_holder(node: str) -> str:
    """Holder name of a node's memory: ``host:node-1``."""
    return f"host:{node}"


@dataclass(frozen=True, slots=True)
class Layout:
    """Immutable; checked when made.

    Attributes:
        shapes: global shape of every key that any holder mentions.
        holders: holder name -> key -> the regions it holds (they may overlap).

    Raises:
        PlanError: a key has no shape, or a region leaves its tensor; names holder and key.
    """

    shapes: Mapping[StateKey, Shape]
    holders: Mapping[str, Mapping[StateKey, tuple[Region, ...]]]

    def __post_init__(self) -> None:
        for holder, keys in self.holders.items():
            for key, regions in keys.items():
                if key not in self.shapes:
                    raise PlanError(f"{holder} holds {key}: expected a shape for it in the layout, found none")
                for region in regions:
                    try:
                        check_region(self.shapes[key], region)
                    except PlanError as error:
                        raise PlanError(f"{holder}, {key}: {error}") from None

    def runs(self, holder: str, key: StateKey) -> tuple[Flat, ...]:
        """What ``holder`` holds of ``key`` as disjoint ascending ranges; empty if nothing."""
        regions = self.holders.get(holder, {}).get(key, ())
        return merge_runs(run for region in regions for run in region_to_runs(self.shapes[key], region))


def replicated(shapes: Mapping[StateKey, Shape], holders: Iterable[str]) -> Layout:
    """The layout in which every holder holds every tensor whole (plain data parallelism)."""
    everything = {key: (whole(shape),) for key, shape in shapes.items()}
    return Layout(dict(shapes), dict.fromkeys(holders, everything))
