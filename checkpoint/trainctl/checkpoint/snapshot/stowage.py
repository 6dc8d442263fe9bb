"""Where what a rank saves lies: chunk by chunk in its live tensors, and in the host memory that they are copied to.

Training waits while a snapshot begins, and those of a run are alike but for the step. So this is found out once, and
kept for the next. It is numbers only, no tensor: any state that lies alike may be stowed by it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch

from trainctl.checkpoint.layout.key import StateKey
from trainctl.checkpoint.layout.region import Region, Shape
from trainctl.checkpoint.live.state import LocalState, StateTensor
from trainctl.checkpoint.live.tensors import dtype_of, part_view, stretches
from trainctl.checkpoint.save.data_file import MAX_FILE_BYTES, Entry
from trainctl.checkpoint.save.saving import Portion, entries_of

CHUNK_BYTES = 16 << 20
"""Copied at a time: the fence ends a late copy between two chunks."""
_ALIGNMENT = 64


class Chunk(NamedTuple):
    """Some elements of a live tensor, as strides over its memory, and where they go.

    Attributes:
        size: of the view of them.
        strides: in the live tensor's memory, row-major.
        source: where there the first one is.
        target: where in host memory it goes, as an array of the tensor's dtype; the others follow.
        volume: how many.
    """

    size: tuple[int, ...]
    strides: tuple[int, ...]
    source: int
    target: int
    volume: int

    def of(self, memory: torch.Tensor) -> torch.Tensor:
        """The elements in the 1-d memory of the live tensor."""
        return memory.as_strided(self.size, self.strides, memory.storage_offset() + self.source)

    def into(self, room: torch.Tensor) -> torch.Tensor:
        """Their place in host memory."""
        place = room[self.target : self.target + self.volume]
        return place if len(self.size) == 1 else place.view(self.size)


@dataclass(frozen=True, slots=True)
class Stowed:
    """What is saved of one live tensor.

    Attributes:
        key: of the tensor, at the step for which this was found out.
        shape: of the whole tensor.
        held: the part of it that is live here.
        assigned: what this rank saves of the whole tensor.
        entries: regions that become entries of a data file: where they begin in host memory, and how many elements.
        chunks: all of it.
    """

    key: StateKey
    shape: Shape
    held: Region
    assigned: tuple[Region, ...]
    entries: tuple[tuple[Region, int, int], ...]
    chunks: tuple[Chunk, ...]

    def suits(self, live: StateTensor, assigned: tuple[Region, ...]) -> bool:
        """Whether it is the same for this tensor, whatever its version."""
        return (
            self.key[:-1] == live.key[:-1]
            and self.assigned == assigned
            and self.held == live.region
            and self.shape == live.shape
        )


@dataclass(frozen=True, slots=True)
class Stowage:
    """What is saved of a state, tensor by tensor in its order, and the memory that it takes.

    Attributes:
        tensors: one for each of the state.
        size_bytes: of the memory.
    """

    tensors: tuple[Stowed, ...]
    size_bytes: int

    def suits(self, state: LocalState, assigned: Portion) -> bool:
        """Whether that is the same for another state."""
        return len(self.tensors) == len(state.tensors) and all(
            stowed.suits(live, assigned.get(live.key, ()))
            for stowed, live in zip(self.tensors, state.tensors, strict=True)
        )

    def entries(self, state: LocalState, room: Mapping[str, torch.Tensor]) -> Iterator[tuple[Entry, torch.Tensor]]:
        """The entries, and the memory of each.

        Args:
            state: says which version they are of.
            room: the memory as an array of each dtype.
        """
        for stowed, live in zip(self.tensors, state.tensors, strict=True):
            for region, begin, count in stowed.entries:
                yield Entry(live.key, live.shape, region), room[live.key.dtype][begin : begin + count]


def stow(state: LocalState, assigned: Portion, *, max_entry_bytes: int = MAX_FILE_BYTES) -> Stowage:
    """Finds out where everything lies.

    Args:
        state: the live tensors.
        assigned: which regions of them are saved.
        max_entry_bytes: size of one entry of a data file, at most.
    """
    held: list[list[Entry]] = [[] for _ in state.tensors]
    place = {id(live): number for number, live in enumerate(state.tensors)}
    for live, entry in entries_of(state, assigned, max_entry_bytes=max_entry_bytes):
        held[place[id(live)]].append(entry)
    tensors: list[Stowed] = []
    position = 0
    for live, entries in zip(state.tensors, held, strict=True):
        item_bytes = live.key.item_bytes
        places: list[tuple[Region, int, int]] = []
        chunks: list[Chunk] = []
        for entry in entries:
            begin = position // item_bytes
            places.append((entry.region, begin, entry.size_bytes // item_bytes))
            chunks += _chunks(live, entry.region, begin)
            position += -(-entry.size_bytes // _ALIGNMENT) * _ALIGNMENT
        regions = assigned.get(live.key, ())
        tensors.append(Stowed(live.key, live.shape, live.region, regions, tuple(places), tuple(chunks)))
    return Stowage(tuple(tensors), position)


def _chunks(live: StateTensor, region: Region, begin: int) -> Iterator[Chunk]:
    memory = live.tensor.detach().reshape(-1)
    view = part_view(memory, live.shape, live.region, region)
    for before, part in stretches(view, max(1, CHUNK_BYTES // live.key.item_bytes)):
        source = int(part.storage_offset()) - int(memory.storage_offset())
        yield Chunk(tuple(part.shape), part.stride(), source, begin + before, part.numel())


def room_of(memory: torch.Tensor, stowage: Stowage) -> Mapping[str, torch.Tensor]:
    """The memory as an array of each dtype that is stowed there.

    Args:
        memory: uint8, 1-d, of at least the stowage's size.
        stowage: what is to lie there.
    """
    usable = memory[: stowage.size_bytes]
    return {name: usable.view(dtype_of(name)) for name in {stowed.key.dtype for stowed in stowage.tensors}}


class Stower:
    """Keeps the newest stowage; one for each place that a rank saves to."""

    def __init__(self) -> None:
        self._newest = Stowage((), 0)

    def of(self, state: LocalState, assigned: Portion) -> Stowage:
        """As ``stow``, which is called only where the last one does not suit."""
        if not self._newest.suits(state, assigned):
            self._newest = stow(state, assigned)
        return self._newest
