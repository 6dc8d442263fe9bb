"""Carries out a copy plan between live tensors, with several ranks at once and a few messages in flight to each.

Both sides go through staging buffers: an abandoned receive may still write when a frozen peer wakes up, and must not
write into the live state; an abandoned send may still read.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from trainctl.checkpoint.callbacks import nothing, unseen
from trainctl.checkpoint.exchange.lanes import Lane, ahead, run_lanes
from trainctl.checkpoint.exchange.port import Exchange, Work
from trainctl.checkpoint.layout.combine import Cast
from trainctl.checkpoint.layout.copy_plan import CopyPlan, Transfer
from trainctl.checkpoint.layout.layout import rank_holder
from trainctl.checkpoint.layout.region import volume
from trainctl.checkpoint.live.state import LocalState
from trainctl.checkpoint.live.tensors import dtype_of
from trainctl.checkpoint.load.target import targets_of
from trainctl.core.errors import InternalError
from trainctl.parallel.collectives.solo import DoneWork
from trainctl.parallel.collectives.wait import Waiter
from trainctl.parallel.recovery.transfer import Message, by_rank, messages

_AT_ONCE = 16
"""Ranks that are sent to, and as many that are received from: the messages in flight to all of them are in memory."""


class StateCopy:
    """One rank's part in a copy plan.

    Args:
        group: over which.
        plan: the same on all ranks; copies and casts only.
        source: the live tensors that are sent.
        target: those that are filled: others than ``source``, unless this rank does one of the two only.
        waiter: for the messages.
        reach: fault point, called before each message.

    Attributes:
        wanted_bytes: what will be received.

    Raises:
        InternalError: the plan wants what no copy can do yet; nothing was sent.
    """

    def __init__(
        self,
        group: Exchange,
        plan: CopyPlan,
        *,
        source: LocalState,
        target: LocalState,
        waiter: Waiter,
        reach: Callable[[str], None],
    ) -> None:
        outgoing, incoming = plan.out_of(rank_holder(group.rank)), plan.into(rank_holder(group.rank))
        for transfer in (*outgoing, *incoming):
            if not isinstance(transfer.combine, Cast | None):
                raise InternalError(
                    f"{transfer.dst_key} of {transfer.dst_holder}: expected a copy or a cast, found "
                    f"{transfer.combine} of {transfer.src_key}, which no live copy can make"
                )
        self._group = group
        self._outgoing = by_rank((transfer.dst_holder, transfer) for transfer in outgoing)
        self._incoming = by_rank((transfer.src_holder, transfer) for transfer in incoming)
        self._source = targets_of(source) if outgoing else {}
        self._target = targets_of(target) if incoming else {}
        self._waiter = waiter
        self._reach = reach
        self._received: Counter[str] = Counter()
        self.wanted_bytes = sum(transfer.size_bytes for transfer in incoming)

    def run(self, *, writing: Callable[[], None] = nothing, got: Callable[[int], None] = unseen) -> dict[str, int]:
        """Sends and receives; returns bytes by source when all is there, and all that is sent on its way.

        Args:
            writing: called when the first bytes are there, before they are written: until then nothing has changed.
            got: told the size of each message that is there.

        Raises:
            Interrupted, CollectiveError: as ``Waiter.wait``; after ``writing`` the target's tensors are worthless.
        """
        sending = [
            self._waiter.lane(ahead(self._sent(rank, transfers)), f"sending the state to rank {rank}")
            for rank, transfers in self._outgoing.items()
            if rank != self._group.rank
        ]
        receiving = [
            self._waiter.lane(self._receiving(rank, transfers, writing, got), f"receiving the state from rank {rank}")
            for rank, transfers in self._incoming.items()
        ]
        # Every rank goes through the others in their order, so that not all can wait for each other.
        lanes = [itertools.chain(*some[n::_AT_ONCE]) for some in (sending, receiving) for n in range(_AT_ONCE)]
        run_lanes(lanes, alive=self._waiter.touch, check=self._waiter.check)
        for target in itertools.chain(*self._target.values()):
            target.finish()
        return dict(self._received)

    def _sent(self, destination: int, transfers: Sequence[Transfer]) -> Lane:
        for tag, message in enumerate(messages(transfers)):
            self._reach("restore.send")
            yield self._group.send(self._pack(message), destination, tag)

    def _receiving(
        self, source: int, transfers: Sequence[Transfer], writing: Callable[[], None], got: Callable[[int], None]
    ) -> Lane:
        for work, message, staged in ahead(self._posted(source, transfers)):
            self._reach("restore.receive")
            yield work
            if not self._received:
                writing()
            self._unpack(message, staged)
            self._received[f"rank {source}"] += len(staged)
            got(len(staged))

    def _posted(self, source: int, transfers: Sequence[Transfer]) -> Iterator[tuple[Work, Message, Tensor]]:
        for tag, message in enumerate(messages(transfers)):
            if source == self._group.rank:
                yield DoneWork(), message, self._pack(message)
                continue
            size = sum(transfer.size_bytes for transfer in message)
            staged = torch.empty(size, dtype=torch.uint8, device=self._group.device)
            yield self._group.receive(staged, source, tag), message, staged

    def _pack(self, message: Message) -> Tensor:
        packed: list[Tensor] = []
        for transfer in message:
            dtype = dtype_of(transfer.src_key.dtype)
            values = torch.empty(volume(transfer.region), dtype=dtype, device=self._group.device)
            for live in self._source[transfer.src_key]:
                for here, part in live.shared(transfer.region, values):
                    part.copy_(here)
            packed.append(values.view(torch.uint8))
        return torch.cat(packed) if len(packed) > 1 else packed[0]

    def _unpack(self, message: Message, staged: Tensor) -> None:
        sizes = [transfer.size_bytes for transfer in message]
        for transfer, data in zip(message, staged.split_with_sizes(sizes), strict=True):
            dtype = dtype_of(transfer.src_key.dtype)
            values = (data.clone() if data.storage_offset() % dtype.itemsize else data).view(dtype)
            for live in self._target[transfer.dst_key]:
                for here, part in live.shared(transfer.region, values):
                    here.copy_(part)
