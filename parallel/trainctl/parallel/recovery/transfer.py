"""Who sends which bytes to whom, and cut into which messages: both ends find the same, each looking at its own only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from trainctl.checkpoint.exchange.lanes import MESSAGE_BYTES
from trainctl.checkpoint.layout.copy_plan import CopyPlan, Transfer, copy_plan
from trainctl.checkpoint.layout.layout import Layout, rank_holder
from trainctl.checkpoint.layout.region import Flat, part_of, volume
from trainctl.core.errors import InternalError
from trainctl.core.records.generation import GenerationRecord

Message = tuple[Transfer, ...]
"""Parts of transfers that go from one rank to another in one go: their elements, one after the other."""


def joiners(record: GenerationRecord) -> tuple[int, ...]:
    """Ranks that hold no state and have to receive it."""
    return tuple(rank for rank in range(record.world_size) if rank not in record.holders)


def plan_copies(record: GenerationRecord, layout: Layout) -> CopyPlan:
    """Every joiner gets every byte once; the bytes are spread over all holders.

    Args:
        record: says who holds the state and who needs it.
        layout: of all ranks, as it is to be afterwards; its keys carry the target version.

    Raises:
        InternalError: a range has no holder.
    """
    src = layout.only([rank_holder(rank) for rank in record.holders])
    dst = layout.only([rank_holder(rank) for rank in joiners(record)])
    plan = copy_plan(src, dst)
    if plan.missing:
        raise InternalError(f"generation {record.generation}: no holder for {plan.missing[0]}")
    return plan


def by_rank(ends: Iterable[tuple[str, Transfer]]) -> dict[int, list[Transfer]]:
    """Transfers by the rank at one of their ends, given as its holder; in the order of the ranks."""
    found: dict[int, list[Transfer]] = {}
    for holder, transfer in ends:
        found.setdefault(int(holder.partition(":")[2]), []).append(transfer)
    return dict(sorted(found.items()))


def messages(transfers: Iterable[Transfer], message_bytes: int = MESSAGE_BYTES) -> Iterator[Message]:
    """Cuts what one rank sends to another; the place of a message is its tag."""
    parts: list[Transfer] = []
    room = message_bytes
    for transfer in transfers:
        start, size = 0, volume(transfer.region)
        while start < size:
            count = min(size - start, max(room // transfer.src_key.item_bytes, 1))
            run = Flat(start, start + count)
            parts += (transfer._replace(region=region) for region in part_of(transfer.region, run))
            start += count
            room -= count * transfer.src_key.item_bytes
            if room < 8:  # not even one element of any dtype fits
                yield tuple(parts)
                parts, room = [], message_bytes
    if parts:
        yield tuple(parts)
