"""Who copies which region from whom, so that a destination layout is filled from a source layout.

Saving (workers to files), loading (files to workers), peer recovery and live resharding are all this one function.
Every wanted byte is read exactly once, and the bytes read are balanced over the replicas that have them.

Thousands of keys share a few placements, so what is wanted is found once for each pair of placements; and what a holder
wants or sends, when somebody asks for it: a rank needs only its own. Only where several replicas have what it is about
must all wants be known, since these replicas share out all that they have to supply.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from trainctl.checkpoint.layout.balance import Sources
from trainctl.checkpoint.layout.combine import Combine, Term
from trainctl.checkpoint.layout.coverage import Coverage
from trainctl.checkpoint.layout.grid import union
from trainctl.checkpoint.layout.key import StateKey
from trainctl.checkpoint.layout.layout import Layout
from trainctl.checkpoint.layout.pairing import Pairing, Want
from trainctl.checkpoint.layout.placement import Placement
from trainctl.checkpoint.layout.pool import Piece, Pool, Stack, deal_all
from trainctl.checkpoint.layout.region import Flat, Region, merge_runs, one_run, order_of, volume
from trainctl.core.errors import PlanError


class Transfer(NamedTuple):
    """One copy.

    Attributes:
        src_holder: who sends; equal to ``dst_holder`` only where a combine makes a local copy necessary.
        dst_holder: who receives.
        src_key: what it is.
        dst_key: what it becomes.
        region: which elements of the global tensor, in row-major order; the same in source and destination.
        combine: what happens on the way; None copies the bytes.
    """

    src_holder: str
    dst_holder: str
    src_key: StateKey
    dst_key: StateKey
    region: Region
    combine: Combine | None = None

    @property
    def size_bytes(self) -> int:
        """Bytes read from the source."""
        return volume(self.region) * self.src_key.item_bytes


@dataclass(frozen=True, slots=True)
class MissingRange:
    """Elements that somebody wants and no usable holder has: the next rung of the ladder must supply them."""

    dst_holder: str
    dst_key: StateKey
    region: Region
    src_key: StateKey

    def __str__(self) -> str:
        return f"{self.dst_holder} has no source for {self.region} of {self.src_key}"


@dataclass(frozen=True, slots=True)
class _Group:
    """Keys (by number) that lie alike on both sides, and what is wanted of each of them."""

    pairing: Pairing
    keys: list[int] = field(default_factory=list[int])

    @property
    def missing(self) -> Iterator[tuple[str, Region]]:
        """What nobody has, and who wants it."""
        found: dict[str, list[Region]] = {}
        for want in self.pairing.missing():
            found.setdefault(want.dst_holder, []).append(want.region)
        for holder, regions in found.items():
            for region in _joined(self.pairing, tuple(regions)):
                yield holder, region


class _Copy(NamedTuple):
    """What one destination key comes from, and how both lie."""

    dst_key: StateKey
    term: Term
    pairing: Pairing


_Wants = Sequence[tuple[_Group, Sequence[Want]]]
_Regions = tuple[tuple[tuple[bool, Region], str], ...]
"""Regions of a key, in their order, and where each comes from."""


class CopyPlan:
    """Transfers in a fixed order (by destination, key, region), and what has no source. ``copy_plan`` makes it."""

    def __init__(self, copies: Sequence[_Copy], groups: Iterable[_Group]) -> None:
        self._copies = copies
        self._groups = tuple(groups)

    def into(self, dst_holder: str) -> tuple[Transfer, ...]:
        """The transfers to one destination."""
        wants = [(group, tuple(group.pairing.into(dst_holder))) for group in self._groups]
        pieces: Iterator[Piece] = iter(())
        if _have_replicas(wants):
            stacks = self._dealt.stacks.get(dst_holder, ())
            pieces = (piece for pool, stack in stacks for piece in pool.pieces(stack))
        return self._transfers(wants, pieces)

    def out_of(self, src_holder: str) -> tuple[Transfer, ...]:
        """The transfers from one source."""
        wants = [(group, tuple(group.pairing.out_of(src_holder))) for group in self._groups]
        pieces: Iterator[Piece] = iter(())
        if _have_replicas(wants):
            pieces = (piece for pool in self._dealt.pools.values() for piece in pool.pieces_of(src_holder))
        return self._transfers(wants, pieces)

    @cached_property
    def transfers(self) -> tuple[Transfer, ...]:
        """All of them; for small worlds, since nobody takes part in all."""
        return tuple(itertools.chain.from_iterable(self.into(holder) for holder in self._destinations))

    @cached_property
    def sources(self) -> frozenset[str]:
        """Every holder that something may come from."""
        return frozenset(
            itertools.chain.from_iterable(want.sources for group in self._groups for want in group.pairing.all())
        )

    @cached_property
    def missing(self) -> tuple[MissingRange, ...]:
        """What has no source, by destination, key and region."""
        found = [
            MissingRange(holder, dst_key, region, term.key)
            for group in self._groups
            for holder, region in group.missing
            for dst_key, term, _ in (self._copies[number] for number in group.keys)
        ]
        return tuple(sorted(found, key=lambda m: (m.dst_holder, m.dst_key, order_of(m.region), m.src_key)))

    @property
    def _destinations(self) -> list[str]:
        return sorted({holder for group in self._groups for holder in group.pairing.destinations})

    @cached_property
    def _dealt(self) -> _Dealt:
        dealt = _Dealt({}, {}, {})
        for group in self._groups:
            item_bytes = self._copies[group.keys[0]].term.key.item_bytes
            if not group.pairing.has_replicas:
                dealt.add_alone(group.pairing.sizes(), len(group.keys) * item_bytes)
                continue
            for want in group.pairing.all():
                dealt.add(want, group.keys, item_bytes)
        deal_all(dealt.pools, dealt.alone)
        return dealt

    def _transfers(self, wants: _Wants, dealt: Iterable[Piece]) -> tuple[Transfer, ...]:
        """In order: what comes from its only source, which is the same for all keys of a group, and what was dealt."""
        found: dict[str, dict[int, _Regions]] = {}
        for group, some in wants:
            for dst_holder, regions in _from_the_only_one(group.pairing, some).items():
                found.setdefault(dst_holder, {}).update(dict.fromkeys(group.keys, regions))
        for (dst_holder, number), regions in self._with_dealt(found, dealt):
            found.setdefault(dst_holder, {})[number] = regions
        transfers: list[Transfer] = []
        for dst_holder, by_key in sorted(found.items()):
            for number in sorted(by_key):
                dst_key, (src_key, combine), _ = self._copies[number]
                transfers += [
                    Transfer(source, dst_holder, src_key, dst_key, region, combine)
                    for (_, region), source in by_key[number]
                ]
        return tuple(transfers)

    def _with_dealt(
        self, alone: Mapping[str, Mapping[int, _Regions]], dealt: Iterable[Piece]
    ) -> Iterator[tuple[tuple[str, int], _Regions]]:
        """The regions of those keys of a destination of which something was dealt, all together, as few."""
        by_source: dict[tuple[str, int], dict[str, list[Region]]] = {}
        for piece in dealt:
            here = by_source.setdefault((piece.dst_holder, piece.key), {})
            here.setdefault(piece.source, []).append(piece.region)
        known: dict[tuple[int, tuple[Region, ...]], tuple[Region, ...]] = {}
        for (dst_holder, number), here in by_source.items():
            pairing = self._copies[number].pairing
            for (_, region), source in alone.get(dst_holder, {}).get(number, ()):
                here.setdefault(source, []).append(region)
            regions: list[tuple[tuple[bool, Region], str]] = []
            for source, some in here.items():
                what = id(pairing), tuple(some)
                if what not in known:
                    known[what] = _joined(pairing, what[1])
                regions += [(order_of(region), source) for region in known[what]]
            yield (dst_holder, number), tuple(sorted(regions))


@dataclass(frozen=True, slots=True)
class _Dealt:
    """Who supplies what that several have: the pools by sources, and where in them the wants of each destination are.

    Attributes:
        alone: bytes that come from a source since no other has them.
    """

    pools: dict[Sources, Pool]
    stacks: dict[str, list[tuple[Pool, Stack]]]
    alone: dict[Sources, int]

    def add(self, want: Want, keys: Sequence[int], item_bytes: int) -> None:
        if len(want.sources) > 1:
            pool = self.pools.get(want.sources)
            if pool is None:
                pool = self.pools[want.sources] = Pool(want.sources)
            self.stacks.setdefault(want.dst_holder, []).append((pool, pool.add(want, keys, item_bytes)))
        elif want.sources:
            self.add_alone([(volume(want.region), want.sources)], len(keys) * item_bytes)

    def add_alone(self, sizes: Iterable[tuple[int, Sources]], element_bytes: int) -> None:
        """Elements that come from their only source, and the bytes of one of them in all keys."""
        found: dict[Sources, int] = {}
        for size, source in sizes:
            found[source] = found.get(source, 0) + size
        for source, size in found.items():
            self.alone[source] = self.alone.get(source, 0) + size * element_bytes


def copy_plan(
    src: Layout,
    dst: Layout,
    *,
    failed: frozenset[str] = frozenset(),
    terms: Mapping[StateKey, Sequence[Term]] | None = None,
) -> CopyPlan:
    """Plans the copies that fill ``dst`` from ``src``.

    What a destination already holds under the same key and name is not copied. The result depends on the values of the
    arguments only, never on their order or on hashing.

    Args:
        src: what there is.
        dst: what is wanted.
        failed: holders of ``src`` that must not be read.
        terms: for destination keys that do not come from their equal: what they come from (a cast, a weighted sum).

    Raises:
        PlanError: a key has different shapes in source and destination.
    """
    copies: list[_Copy] = []
    groups: dict[tuple[object, ...], _Group | None] = {}
    cut_src: dict[int, Coverage] = {}
    cut_dst: dict[int, Coverage] = {}
    known: Mapping[StateKey, Sequence[Term]] = terms or {}
    for dst_key in sorted(key for key, placement in dst.placements.items() if placement.regions):
        wanted = dst.placements[dst_key]
        for term in sorted(known[dst_key] if dst_key in known else (Term(dst_key),), key=_term_key):
            held = src.placements.get(term.key)
            if held is not None and held.shape != wanted.shape:
                raise PlanError(
                    f"{dst_key}: expected shape {list(wanted.shape)}, found {list(held.shape)} at the source"
                )
            in_place = term.key == dst_key and term.combine is None
            # Layouts keep equal placements once, so that identity tells what is alike; bytes count when dealing.
            alike = (id(held), id(wanted), in_place, term.key.dtype)
            if alike not in groups:
                groups[alike] = None
                if not (in_place and held == wanted and failed.isdisjoint(wanted.regions)):
                    source = cut_src.setdefault(id(held), Coverage(held or Placement(wanted.shape, {}), failed))
                    demand = cut_dst.setdefault(id(wanted), Coverage(wanted, frozenset()))
                    groups[alike] = _Group(Pairing(source, demand, in_place=in_place))
            # Nothing is to be done for keys that lie on both sides in the same way.
            if group := groups[alike]:
                group.keys.append(len(copies))
                copies.append(_Copy(dst_key, term, group.pairing))
    return CopyPlan(copies, filter(None, groups.values()))


def uncovered(wanted: Layout, sources: Layout, *, failed: frozenset[str] = frozenset()) -> tuple[MissingRange, ...]:
    """The regions of ``wanted`` that no usable holder of ``sources`` has, by name."""
    return copy_plan(sources, wanted, failed=failed).missing


def _term_key(term: Term) -> StateKey:
    return term.key


def _have_replicas(wants: _Wants) -> bool:
    """Whether some of it has to be shared out."""
    return any(len(want.sources) > 1 for _, found in wants for want in found)


def _from_the_only_one(pairing: Pairing, wants: Iterable[Want]) -> dict[str, _Regions]:
    """By destination what comes from its only source, as few regions: nothing is to be shared out."""
    by_ends: dict[tuple[str, str], list[Region]] = {}
    for want in wants:
        if len(want.sources) == 1:
            by_ends.setdefault((want.dst_holder, want.sources[0]), []).append(want.region)
    found: dict[str, list[tuple[tuple[bool, Region], str]]] = {}
    for (dst_holder, source), regions in by_ends.items():
        joined = _joined(pairing, tuple(regions))
        found.setdefault(dst_holder, []).extend((order_of(region), source) for region in joined)
    return {dst_holder: tuple(sorted(regions)) for dst_holder, regions in found.items()}


def _joined(pairing: Pairing, regions: tuple[Region, ...]) -> tuple[Region, ...]:
    """Disjoint regions as few; which ones depends on the elements alone."""
    if len(regions) == 1:
        return (one_run(pairing.shape, regions[0]),)
    if pairing.is_flat:
        return merge_runs(region for region in regions if isinstance(region, Flat))
    return union(pairing.shape, regions)
