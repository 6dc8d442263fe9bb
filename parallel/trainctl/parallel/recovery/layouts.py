"""What all ranks of a group hold, as one layout."""

from __future__ import annotations

from typing import Any

from trainctl.checkpoint.layout.layout import Layout, rank_holder
from trainctl.checkpoint.layout.region import Box, Flat, Region
from trainctl.checkpoint.state import LocalState
from trainctl.parallel.collectives.gather import gather_json
from trainctl.parallel.collectives.port import Group
from trainctl.parallel.collectives.wait import Waiter


def gathered_layout(group: Group, state: LocalState, *, waiter: Waiter) -> Layout:
    """The layout of a state whose parts lie on the ranks; tensors are in the same order on all of them.

    Raises:
        Interrupted, CollectiveError: as ``Waiter.wait``.
    """
    own = [_plain(tensor.region) for tensor in state.tensors]
    said = gather_json(group, own, waiter=waiter, what="comparing who holds what")
    keys = [tensor.key for tensor in state.tensors]
    holders = {
        rank_holder(rank): {key: (_region(plain),) for key, plain in zip(keys, regions, strict=True)}
        for rank, regions in enumerate(said)
    }
    return Layout(state.shapes(), holders)


def _plain(region: Region) -> list[Any]:
    return [region.start, region.stop] if isinstance(region, Flat) else [list(region.offsets), list(region.lengths)]


def _region(plain: list[Any]) -> Region:
    first, second = plain
    return Flat(first, second) if isinstance(first, int) else Box(tuple(first), tuple(second))
