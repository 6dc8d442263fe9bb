"""Sends and receives the messages of a recovery, with a few in flight.

Both sides go through staging buffers: an abandoned receive may still write when a frozen peer wakes up, and must not
write into the live state; an abandoned send may still read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from trainctl.checkpoint.callbacks import unseen
from trainctl.checkpoint.exchange.port import Work
from trainctl.checkpoint.layout.key import StateKey
from trainctl.checkpoint.live.state import LocalState, StateTensor
from trainctl.checkpoint.live.tensors import part_view
from trainctl.core.errors import InternalError
from trainctl.parallel.collectives.port import Group
from trainctl.parallel.collectives.wait import Waiter
from trainctl.parallel.recovery.transfer import Message, Piece

_IN_FLIGHT = 4


class StateCopy:
    """One rank's part in a copy plan.

    Args:
        group: over which.
        state: the live tensors.
        waiter: for the messages.
        reach: fault point, called before each message.
    """

    def __init__(self, group: Group, state: LocalState, *, waiter: Waiter, reach: Callable[[str], None]) -> None:
        self._group = group
        self._tensors: dict[StateKey, StateTensor] = {tensor.key: tensor for tensor in state.tensors}
        self._waiter = waiter
        self._reach = reach

    def send(self, messages: Sequence[Message]) -> None:
        """Sends what this rank is the source of; returns when all of it is on its way.

        Raises:
            Interrupted, CollectiveError: as ``Waiter.wait``; nothing here has changed.
        """
        own = [message for message in messages if message.source == self._group.rank]
        in_flight: deque[tuple[Work, Message]] = deque()
        for message in own:
            self._reach("restore.send")
            if len(in_flight) == _IN_FLIGHT:
                self._wait_sent(*in_flight.popleft())
            work = self._group.send(self._pack(message), message.destination, message.tag)
            in_flight.append((work, message))
        for work, message in in_flight:
            self._wait_sent(work, message)

    def receive(
        self, messages: Sequence[Message], *, writing: Callable[[], None], got: Callable[[int], None] = unseen
    ) -> dict[str, int]:
        """Receives what is meant for this rank into the live tensors; returns bytes by source.

        Args:
            messages: the plan.
            writing: called when the first bytes are there, before they are written: until then nothing has changed.
            got: told the size of each message that is there.

        Raises:
            Interrupted, CollectiveError: as ``Waiter.wait``; after ``writing`` the live tensors are worthless.
        """
        waiting = deque(message for message in messages if message.destination == self._group.rank)
        in_flight: deque[tuple[Work, Message, Tensor]] = deque()
        received: dict[str, int] = {}
        while waiting or in_flight:
            while waiting and len(in_flight) < _IN_FLIGHT:
                in_flight.append(self._post(waiting.popleft()))
            self._reach("restore.receive")
            work, message, staged = in_flight.popleft()
            self._waiter.wait(work, f"receiving the state from rank {message.source}")
            if not received:
                writing()
            self._unpack(message, staged)
            source = f"rank {message.source}"
            received[source] = received.get(source, 0) + message.size_bytes
            got(message.size_bytes)
        return received

    def _wait_sent(self, work: Work, message: Message) -> None:
        self._waiter.wait(work, f"sending the state to rank {message.destination}")

    def _post(self, message: Message) -> tuple[Work, Message, Tensor]:
        staged = torch.empty(message.size_bytes, dtype=torch.uint8, device=self._group.device)
        return self._group.receive(staged, message.source, message.tag), message, staged

    def _pack(self, message: Message) -> Tensor:
        staged = torch.empty(message.size_bytes, dtype=torch.uint8, device=self._group.device)
        offset = 0
        for piece in message.pieces:
            staged[offset : offset + piece.size_bytes].copy_(self._bytes(piece))
            offset += piece.size_bytes
        return staged

    def _unpack(self, message: Message, staged: Tensor) -> None:
        offset = 0
        for piece in message.pieces:
            self._bytes(piece).copy_(staged[offset : offset + piece.size_bytes])
            offset += piece.size_bytes

    def _bytes(self, piece: Piece) -> Tensor:
        live = self._tensors[piece.key]
        found = part_view(live.tensor, live.shape, live.region, piece.region)
        if not live.tensor.is_contiguous() or found.dim() != 1:
            raise InternalError(f"{piece.key}: expected contiguous memory, found strides {found.stride()}")
        return found.view(torch.uint8)
