"""Live tensors as places that bytes are brought to, or taken from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from trainctl.checkpoint.layout.key import StateKey
from trainctl.checkpoint.layout.region import Region, common, hull, offset_in, volume
from trainctl.checkpoint.live.state import LocalState, StateTensor
from trainctl.checkpoint.live.tensors import byte_view, region_view


class Target:
    """A live tensor as flat memory; one that is not contiguous is read and filled through a contiguous copy."""

    def __init__(self, live: StateTensor) -> None:
        self._live = live
        self._flat = live.tensor.detach().contiguous().view(-1)

    def memory(self, parts: Sequence[Region]) -> memoryview | None:
        """Where some parts of the region belong, if they lie together there, in their order, and in host memory."""
        shape, region = self._live.shape, self._live.region
        first = offset_in(shape, region, hull(shape, parts[0]).start)
        stop = offset_in(shape, region, hull(shape, parts[-1]).stop - 1) + 1
        if self._flat.device.type != "cpu" or stop - first != sum(map(volume, parts)):
            return None
        return byte_view(self._flat[first:stop])

    def view(self, piece: Region) -> Tensor:
        """The elements of a part of the region; writing to it writes there."""
        return region_view(self._flat, self._live.shape, self._live.region, piece)

    def shared(self, region: Region, elements: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """What a region has in common with this one: views of it here, and in the 1-d elements of that region."""
        for piece in common(self._live.shape, self._live.region, region):
            yield self.view(piece), region_view(elements, self._live.shape, region, piece)

    def finish(self) -> None:
        """Brings a contiguous copy home."""
        if not self._live.tensor.is_contiguous():
            self._live.tensor.detach().copy_(self._flat.view(self._live.tensor.shape))


def targets_of(state: LocalState) -> dict[StateKey, list[Target]]:
    """By key, in the order of the regions that the state holds of it."""
    targets: dict[StateKey, list[Target]] = {}
    for tensor in state.tensors:
        targets.setdefault(tensor.key, []).append(Target(tensor))
    return targets
