"""Deals ranges to the replicas that hold them so that each replica reads about the same number of bytes."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from trainctl.checkpoint.layout.combine import Term
from trainctl.checkpoint.layout.key import StateKey
from trainctl.checkpoint.layout.region import Flat

_PIECES_PER_HOLDER = 20
"""A range bigger than 1/20 of a fair share is split, so no replica gets more than 5 % above it."""

_SMALLEST_SPLIT_BYTES = 1 << 16
"""Below this, a split costs more (one more request) than it balances."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A range to copy and the holders it may come from (ascending, at least one)."""

    dst_holder: str
    dst_key: StateKey
    region: Flat
    term: Term
    sources: tuple[str, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes read from the source."""
        return self.region.volume * self.term.key.item_bytes


def balance(pieces: Sequence[Piece], loads: Mapping[str, int]) -> list[Piece]:
    """Chooses one source for every piece, splitting large ones; touching ranges from one source come back as one piece.

    Args:
        pieces: what to copy.
        loads: bytes that each source already has to read.
    """
    load = dict(loads)
    fixed = [p for p in pieces if len(p.sources) == 1]
    for piece in fixed:
        load[piece.sources[0]] += piece.size_bytes
    free = list(_split([p for p in pieces if len(p.sources) > 1]))
    free.sort(key=lambda p: (-p.size_bytes, p.dst_holder, p.dst_key, p.term.key, p.region))
    heaps: dict[tuple[str, ...], list[tuple[int, str]]] = {}
    chosen = []
    for piece in free:
        source = _least_loaded(heaps, piece.sources, load)
        load[source] += piece.size_bytes
        chosen.append(replace(piece, sources=(source,)))
    return _merge(fixed + chosen)


def _least_loaded(
    heaps: dict[tuple[str, ...], list[tuple[int, str]]], sources: tuple[str, ...], load: Mapping[str, int]
) -> str:
    """The least loaded of ``sources``; one lazily corrected heap for each set of replicas keeps this logarithmic."""
    heap = heaps.setdefault(sources, [])
    if not heap:
        heap.extend((load[source], source) for source in sources)
        heapq.heapify(heap)
    while True:
        known, source = heap[0]
        if known == load[source]:
            return source
        heapq.heapreplace(heap, (load[source], source))


def _split(pieces: Sequence[Piece]) -> Iterator[Piece]:
    total = sum(p.size_bytes for p in pieces)
    replicas = len({source for p in pieces for source in p.sources})
    limit = max(_SMALLEST_SPLIT_BYTES, total // max(1, replicas * _PIECES_PER_HOLDER))
    for piece in pieces:
        parts = -(-piece.size_bytes // limit)
        start, count = piece.region.start, piece.region.volume
        for part in range(parts):
            region = Flat(start + count * part // parts, start + count * (part + 1) // parts)
            if region.volume:
                yield replace(piece, region=region)


def _merge(pieces: Iterable[Piece]) -> list[Piece]:
    merged: list[Piece] = []
    for piece in sorted(pieces, key=lambda p: (p.dst_holder, p.dst_key, p.term.key, p.region)):
        last = merged[-1] if merged else None
        if last is not None and replace(last, region=piece.region) == piece and last.region.stop == piece.region.start:
            merged[-1] = replace(last, region=Flat(last.region.start, piece.region.stop))
        else:
            merged.append(piece)
    return merged
