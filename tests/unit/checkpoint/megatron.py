"""A transformer as Megatron cuts it: tensor-parallel rows and columns, stages, replicas with flat shards of moments."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from trainctl.checkpoint.layout.key import StateKey, StateVersion
from trainctl.checkpoint.layout.region import Box, Flat, Shape, flat_in_box, intersect
from trainctl.checkpoint.live.state import LocalState, StateTensor

WIDTH, LAYERS, WORDS = 4, 4, 10
EMBED, HEAD = "embed.weight", "head.weight"
PADDING = -1.0
SHAPES: Mapping[str, Shape] = {
    EMBED: (WORDS, WIDTH),
    **{
        f"layers.{n}.{name}": shape
        for n in range(LAYERS)
        for name, shape in {
            "norm.weight": (WIDTH,),
            "qkv.weight": (3 * WIDTH, WIDTH),
            "out.weight": (WIDTH, WIDTH),
        }.items()
    },
}
"""Of the unsharded model; the last layer's output is the embedding again."""


def value(fqn: str, kind: str) -> torch.Tensor:
    """What the whole tensor holds: another number in each element."""
    first = 1000 * sorted(SHAPES).index(fqn) + (500 if kind == "exp_avg" else 0)
    return torch.arange(float(first), float(first + math.prod(SHAPES[fqn]))).reshape(SHAPES[fqn])


@dataclass(frozen=True)
class Place:
    """One rank of a grid of ``tensor`` x ``data`` x ``stages``."""

    tensor: int
    tensors: int
    data: int
    datas: int
    stage: int
    stages: int


@dataclass(frozen=True)
class Grid:
    """How many ranks along each axis."""

    tensor: int
    data: int
    stages: int

    def places(self) -> Iterator[Place]:
        for t, d, s in itertools.product(range(self.tensor), range(self.data), range(self.stages)):
            yield Place(t, self.tensor, d, self.data, s, self.stages)


class Rank:
    """The memory of one rank: parameters, and its flat shard of their moments, with names for what they are.

    Args:
        place: of the rank.
        tied: the name under which the last stage keeps its copy of the embedding.
        filled: with the values of the model; else with something else.
    """

    def __init__(self, place: Place, *, tied: str = EMBED, filled: bool) -> None:
        self._place = place
        self._tied = tied
        self.tensors: list[StateTensor] = []
        self.padding: list[torch.Tensor] = []
        sizes = 0
        runs: list[tuple[str, Box, int]] = []
        for name, fqn in self._names():
            boxes = self._boxes(fqn)
            self._parameter(name, fqn, boxes)
            for box in boxes:
                runs.append((name, box, sizes))
                sizes += math.prod(box.lengths)
        share = -(-sizes // place.datas)
        self.own = Flat(min(sizes, share * place.data), min(sizes, share * (place.data + 1)))
        self.moments = torch.full((self.own.volume,), PADDING)
        for name, box, begin in runs:
            self._moments(name, box, begin)
        for t in self.tensors:
            if filled:
                t.tensor.copy_(self.expected(t))

    def expected(self, t: StateTensor) -> torch.Tensor:
        """What one of its tensors has to hold."""
        assert isinstance(t.region, Box)
        whole = value(EMBED if t.key.fqn == HEAD else t.key.fqn, t.key.kind)
        cut = tuple(slice(o, o + n) for o, n in zip(t.region.offsets, t.region.lengths, strict=True))
        return whole[cut]

    @property
    def state(self) -> LocalState:
        last = self._place.stage == self._place.stages - 1
        return LocalState(tuple(self.tensors), aliases={HEAD: EMBED} if last and self._tied == EMBED else {})

    def _names(self) -> Iterator[tuple[str, str]]:
        place = self._place
        if place.stage == 0:
            yield EMBED, EMBED
        per_stage = LAYERS // place.stages
        for n in range(per_stage * place.stage, per_stage * (place.stage + 1)):
            yield from ((fqn, fqn) for fqn in SHAPES if fqn.startswith(f"layers.{n}."))
        if place.stage == place.stages - 1 and (place.stages > 1 or self._tied == HEAD):
            yield self._tied, EMBED

    def _boxes(self, fqn: str) -> list[Box]:
        """What this rank has of a tensor, one after the other in its memory."""
        t, count = self._place.tensor, self._place.tensors
        rows = WIDTH // count
        if fqn == EMBED:  # padded, so that all ranks have as many rows; what is padding is nobody's
            padded = -(-WORDS // (2 * count)) * 2
            first = min(WORDS, padded * t)
            return [Box((first, 0), (min(WORDS, padded * (t + 1)) - first, WIDTH))]
        if fqn.endswith("qkv.weight"):  # its rows of Q, of K, and of V
            return [Box((part * WIDTH + rows * t, 0), (rows, WIDTH)) for part in range(3)]
        if fqn.endswith("out.weight"):
            return [Box((0, rows * t), (WIDTH, rows))]
        return [Box((0,), (WIDTH,))]

    def _parameter(self, name: str, fqn: str, boxes: list[Box]) -> None:
        shape = SHAPES[fqn]
        rows = sum(box.lengths[0] for box in boxes)
        padded = -(-WORDS // (2 * self._place.tensors)) * 2 if fqn == EMBED else rows
        memory = torch.full((padded, *boxes[0].lengths[1:]), PADDING)
        self.padding.append(memory[rows:])
        begin = 0
        for box in boxes:
            live = memory[begin : begin + box.lengths[0]]
            self.tensors.append(StateTensor(_key(name, "param"), shape, box, live))
            begin += box.lengths[0]

    def _moments(self, name: str, box: Box, begin: int) -> None:
        """The part of the flat shard that belongs to a box that begins at ``begin`` of the whole flat buffer."""
        common = intersect(self.own, Flat(begin, begin + math.prod(box.lengths)))
        if not isinstance(common, Flat):
            return
        position = common.start - self.own.start
        for part in flat_in_box(box, Flat(common.start - begin, common.stop - begin)):
            size = math.prod(part.lengths)
            live = self.moments[position : position + size].view(part.lengths)
            self.tensors.append(StateTensor(_key(name, "exp_avg"), SHAPES[_whole(name)], part, live))
            position += size


def _whole(name: str) -> str:
    return EMBED if name == HEAD else name


def _key(fqn: str, kind: str) -> StateKey:
    return StateKey(fqn, kind, "F32", "island-0", StateVersion(0, 0))
