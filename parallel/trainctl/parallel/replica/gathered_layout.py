"""What all ranks of a group hold, as one layout, where each holds a part."""

from __future__ import annotations

from trainctl.checkpoint.layout.key import StateKey
from trainctl.checkpoint.layout.layout import Layout, rank_holder
from trainctl.checkpoint.layout.placement import Placement
from trainctl.checkpoint.layout.plain import from_plain, to_plain
from trainctl.checkpoint.layout.region import Region, Shape
from trainctl.checkpoint.live.state import LocalState
from trainctl.checkpoint.save.description import schema_digest
from trainctl.core.errors import PlanError
from trainctl.parallel.collectives.gather import gather_json
from trainctl.parallel.collectives.port import Group
from trainctl.parallel.collectives.wait import Waiter


def gathered_layout(group: Group, state: LocalState, *, waiter: Waiter) -> Layout:
    """The layout of a state whose parts lie on the ranks: each has parts of the same tensors, in the same order.

    Raises:
        PlanError: a rank has parts of other tensors.
        Interrupted, CollectiveError: as ``Waiter.wait``.
    """
    # Few regions differ between tensors: each is sent, read and placed once.
    numbers: dict[Region, int] = {}
    own = [numbers.setdefault(tensor.region, len(numbers)) for tensor in state.tensors]
    told = {"schema": schema_digest(state), "regions": [to_plain(region) for region in numbers], "tensors": own}
    said = gather_json(group, told, waiter=waiter, what="comparing who holds what")
    for rank, part in enumerate(said):
        if part.get("schema", told["schema"]) != told["schema"]:  # older workers do not say it
            raise PlanError(
                f"rank {rank} built a model or optimizer of other names, shapes or types than rank {group.rank} did",
                hint="let nothing that is built depend on the rank or the host",
            )
    regions = [[from_plain(plain) for plain in part["regions"]] for part in said]
    ranks = [rank_holder(rank) for rank in range(len(said))]
    alike: dict[tuple[Shape, tuple[int, ...]], Placement] = {}
    placements: dict[StateKey, Placement] = {}
    for tensor, *of_ranks in zip(state.tensors, *(part["tensors"] for part in said), strict=True):
        chosen: tuple[int, ...] = tuple(of_ranks)
        label = (tensor.shape, chosen)
        if label not in alike:
            held = zip(ranks, regions, chosen, strict=True)
            alike[label] = Placement(tensor.shape, {name: (known[number],) for name, known, number in held})
        placements[tensor.key] = alike[label]
    return Layout.placed(placements, ranks)
