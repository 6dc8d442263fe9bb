"""Who sends which bytes to whom, cut into messages: the copy plan of a recovery, made pure and alike on every rank."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from trainctl.checkpoint.layout.copy_plan import Transfer, copy_plan
from trainctl.checkpoint.layout.key import StateKey
from trainctl.checkpoint.layout.layout import Layout, rank_holder
from trainctl.checkpoint.layout.region import Flat, Region, part_of, volume
from trainctl.core.errors import InternalError
from trainctl.core.records.generation import GenerationRecord

MESSAGE_BYTES = 4 << 20
"""Small enough that packing, sending and unpacking overlap; large enough that the count does not matter."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A region of a tensor inside a message."""

    key: StateKey
    region: Region

    @property
    def size_bytes(self) -> int:
        """Bytes of the region."""
        return volume(self.region) * self.key.item_bytes


@dataclass(frozen=True, slots=True)
class Message:
    """What one rank sends to another in one go: the bytes of ``pieces``, one after the other.

    Attributes:
        source: rank that sends.
        destination: rank that receives.
        tag: number of the message between the two, from 0.
        pieces: what is in it.
    """

    source: int
    destination: int
    tag: int
    pieces: tuple[Piece, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of all pieces."""
        return sum(piece.size_bytes for piece in self.pieces)


def joiners(record: GenerationRecord) -> tuple[int, ...]:
    """Ranks that hold no state and have to receive it."""
    return tuple(rank for rank in range(record.world_size) if rank not in record.holders)


def plan_messages(
    record: GenerationRecord, layout: Layout, *, message_bytes: int = MESSAGE_BYTES
) -> tuple[Message, ...]:
    """Every joiner gets every byte once; the bytes are spread over all holders. Sources take turns.

    Args:
        record: says who holds the state and who needs it.
        layout: of all ranks, as it is to be afterwards; its keys carry the target version.
        message_bytes: size of a message.

    Raises:
        InternalError: a range has no holder.
    """
    src = layout.only([rank_holder(rank) for rank in record.holders])
    dst = layout.only([rank_holder(rank) for rank in joiners(record)])
    plan = copy_plan(src, dst)
    if plan.missing:
        raise InternalError(f"generation {record.generation}: no holder for {plan.missing[0]}")
    pairs: dict[tuple[int, int], list[Transfer]] = {}
    for transfer in plan.transfers:
        pairs.setdefault((_rank(transfer.src_holder), _rank(transfer.dst_holder)), []).append(transfer)
    messages = [
        Message(source, destination, tag, pieces)
        for (source, destination), transfers in pairs.items()
        for tag, pieces in enumerate(_cut(transfers, message_bytes))
    ]
    return tuple(sorted(messages, key=lambda message: (message.tag, message.source, message.destination)))


def _rank(holder: str) -> int:
    return int(holder.partition(":")[2])


def _cut(transfers: Sequence[Transfer], message_bytes: int) -> Iterator[tuple[Piece, ...]]:
    pieces: list[Piece] = []
    room = message_bytes
    for transfer in transfers:
        start, size = 0, volume(transfer.region)
        while start < size:
            count = min(size - start, max(room // transfer.src_key.item_bytes, 1))
            parts = part_of(transfer.region, Flat(start, start + count))
            pieces += (Piece(transfer.src_key, part) for part in parts)
            start += count
            room -= count * transfer.src_key.item_bytes
            if room < 8:  # not even one element of any dtype fits
                yield tuple(pieces)
                pieces, room = [], message_bytes
    if pieces:
        yield tuple(pieces)
