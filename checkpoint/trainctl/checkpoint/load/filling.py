"""Brings the bytes of a checkpoint into live tensors: read here, or received from a rank that reads for others, too.

Messages are staged where they are received, since an abandoned receive may write late. Memory is bounded by a few
windows of blocks, whatever the size of the checkpoint.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for

import torch
from torch import Tensor

from trainctl.checkpoint.callbacks import nothing
from trainctl.checkpoint.exchange.lanes import Lane, ahead, run_lanes
from trainctl.checkpoint.exchange.port import Exchange, Work
from trainctl.checkpoint.layout.region import volume
from trainctl.checkpoint.live.state import LocalState
from trainctl.checkpoint.live.tensors import dtype_of, region_view
from trainctl.checkpoint.load.block_read import BlockRead
from trainctl.checkpoint.load.blocks import BlockReader
from trainctl.checkpoint.load.load_watch import LoadWatch
from trainctl.checkpoint.load.readers import Piece, Readers
from trainctl.checkpoint.load.sharing import Sharing
from trainctl.checkpoint.load.target import targets_of

WINDOW_BYTES = 16 << 20
"""Read, and then sent, while the next is read."""
_FIRST_TAG = 1 << 24
"""Other messages between the ranks count from 0."""


class Filling:
    """One load into one state.

    Args:
        reader: of the checkpoint.
        reads: what this rank takes, in an order that all ranks have alike.
        readers: says who takes and reads what.
        state: the live tensors.
        sharing: how to reach the others; None: this rank loads alone.
        alive: called when something moved, or only others can move something.
        watch: told how far it is, and what took how long.

    Attributes:
        touched: whether a tensor may hold other values than before.
    """

    def __init__(
        self,
        reader: BlockReader,
        reads: Sequence[BlockRead],
        readers: Readers,
        state: LocalState,
        *,
        sharing: Sharing | None,
        alive: Callable[[], None],
        watch: LoadWatch,
    ) -> None:
        self._reader = reader
        self._readers = readers
        self._rank = readers.rank
        self._sharing = sharing
        self._alive = alive
        self._watch = watch
        self._own = [read for read in reads if read.reader == self._rank]
        self._others = [read for read in reads if read.reader != self._rank]
        self._targets = targets_of(state)
        self._failure: Exception | None = None
        self._reading = True
        self.touched = False

    @property
    def total_bytes(self) -> int:
        """To be read here, and to be received."""
        blocks = {(read.path, read.begin): read.size for read in self._own}
        return sum(blocks.values()) + sum(self._readers.wanted_bytes(read) for read in self._others)

    def run(self) -> None:
        """Fills the tensors.

        Raises:
            DamagedCheckpointError, OSError: a block is not as it was saved, or cannot be read. What was to be sent of
                it was sent all the same, with other values: nobody's state is right unless all ranks return.
            CollectiveError: a message failed.
        """
        if self._sharing is None or not any(len(read.takers) > 1 for read in (*self._own, *self._others)):
            self._verify_headers()
            self._reader.read_at_once(
                self._own, self._place, self._take, self._alive, watch=self._watch.reading, moved=self._watch.moved
            )
        else:
            sources = sorted({read.reader for read in self._others})
            lanes = [self._receiving(self._sharing, source) for source in sources]
            run_lanes([*lanes, self._sending(self._sharing)], alive=self._alive, check=self._look)
        if self._failure is not None:
            raise self._failure
        for target in (target for group in self._targets.values() for target in group):
            target.finish()

    def _verify_headers(self) -> None:
        self._reader.verify_headers({read.path for read in self._own})

    def _look(self) -> None:
        assert self._sharing is not None
        self._sharing.check()
        if not self._reading:  # a storage that does not answer is to be noticed: then nothing moves
            self._alive()

    def _pieces(self, read: BlockRead, rank: int) -> Sequence[Piece]:
        return self._readers.pieces(read, rank)

    def _place(self, read: BlockRead) -> memoryview | None:
        pieces = self._pieces(read, self._rank)
        if read.transfer.combine is not None or not _all_of(read, pieces):
            return None
        memory = self._targets[read.transfer.dst_key][pieces[0].number].memory(read.regions)
        self.touched |= memory is not None
        return memory

    @torch.no_grad()
    def _take(self, read: BlockRead, data: memoryview) -> None:
        self.touched = True
        values = _values(read, data)
        shape = self._readers.shape(read.transfer.dst_key)
        for piece in self._pieces(read, self._rank):
            target = self._targets[read.transfer.dst_key][piece.number].view(piece.region)
            target.copy_(region_view(values[piece.begin :], shape, piece.inside, piece.region))

    def _sending(self, sharing: Sharing) -> Lane:
        """Reads window by window, and sends each while the next one is read."""
        sent: Counter[int] = Counter()
        windows = list(_windows(self._own))
        in_flight: list[Work] = []
        with ThreadPoolExecutor(1, "checkpoint-window") as pool:
            following = pool.submit(self._window, windows[0]) if windows else None
            for number, window in enumerate(windows):
                assert following is not None
                yield _Reading(following)
                messages = following.result()
                self._watch.moved(sum(read.size for read in window))
                if number + 1 < len(windows):
                    following = pool.submit(self._window, windows[number + 1])
                yield from in_flight
                in_flight = []
                for destination, message in messages:
                    tag = _FIRST_TAG + sent[destination]
                    sent[destination] += 1
                    in_flight.append(sharing.exchange.send(message.to(sharing.exchange.device), destination, tag))
        self._reading = False
        yield from in_flight

    def _window(self, window: Sequence[BlockRead]) -> list[tuple[int, Tensor]]:
        """Reads some blocks; what others take of them, by destination, in the order of the blocks."""
        lasting: dict[tuple[str, int], Tensor] = {}

        def place(read: BlockRead) -> memoryview | None:
            memory = self._place(read)
            if memory is not None and len(read.takers) > 1:
                lasting[read.path, read.begin] = _values(read, memory)
            return memory

        def take(read: BlockRead, data: memoryview) -> None:
            self._take(read, data)
            if len(read.takers) > 1:
                lasting[read.path, read.begin] = _values(read, data).clone()

        try:
            if window[0] is self._own[0]:
                self._verify_headers()
            if self._failure is None:
                self._reader.read_at_once(window, place, take, nothing, watch=self._watch.reading)
        except Exception as error:
            self._failure = error
        shared = [read for read in window if len(read.takers) > 1]
        return [
            (rank, self._message(read, rank, lasting.get((read.path, read.begin))))
            for read in shared
            for rank in read.takers
            if rank != self._rank and self._pieces(read, rank)
        ]

    def _message(self, read: BlockRead, rank: int, values: Tensor | None) -> Tensor:
        """What a rank takes of a block that was read. Where reading failed it gets zeros: it waits for something."""
        pieces = self._pieces(read, rank)
        if values is None:
            return torch.zeros(self._readers.bytes_to(read, rank), dtype=torch.uint8)
        if _all_of(read, pieces):
            return values.view(torch.uint8)
        shape = self._readers.shape(read.transfer.dst_key)
        packed = [region_view(values[p.begin :], shape, p.inside, p.region).reshape(-1) for p in pieces]
        return torch.cat(packed).view(torch.uint8)

    def _receiving(self, sharing: Sharing, source: int) -> Lane:
        for work, read, staged in ahead(self._posted(sharing.exchange, source)):
            yield work
            self._received(read, staged)

    def _posted(self, exchange: Exchange, source: int) -> Iterator[tuple[Work, BlockRead, Tensor]]:
        reads = [read for read in self._others if read.reader == source and self._pieces(read, self._rank)]
        for number, read in enumerate(reads):
            staged = torch.empty(self._readers.wanted_bytes(read), dtype=torch.uint8, device=exchange.device)
            yield exchange.receive(staged, source, _FIRST_TAG + number), read, staged

    @torch.no_grad()
    def _received(self, read: BlockRead, staged: Tensor) -> None:
        self.touched = True
        values = staged.view(dtype_of(read.transfer.src_key.dtype))
        position = 0
        for piece in self._pieces(read, self._rank):
            target = self._targets[read.transfer.dst_key][piece.number].view(piece.region)
            count = target.numel()
            target.copy_(values[position : position + count].view(target.shape))
            position += count
        self._watch.fetched(staged.numel())


class _Reading:
    """A window that is being read, as work of a lane."""

    def __init__(self, reading: Future[list[tuple[int, Tensor]]]) -> None:
        self._reading = reading

    def done(self) -> bool:
        """See ``Work``."""
        return self._reading.done()

    def done_within(self, timeout_s: float) -> bool:
        """See ``Work``."""
        wait_for([self._reading], timeout_s)
        return self._reading.done()

    def error(self) -> str:
        """Nothing: what failed is told when all has been sent."""
        return ""


def _all_of(read: BlockRead, pieces: Sequence[Piece]) -> bool:
    """Whether the pieces are the elements of the blocks, as they come."""
    return len({piece.number for piece in pieces}) == 1 and sum(volume(p.region) for p in pieces) == read.elements


def _values(read: BlockRead, data: memoryview) -> Tensor:
    return torch.frombuffer(data, dtype=dtype_of(read.transfer.src_key.dtype))


def _windows(reads: Sequence[BlockRead]) -> Iterator[list[BlockRead]]:
    window: list[BlockRead] = []
    size = 0
    for read in reads:
        if window and size + read.size > WINDOW_BYTES:
            yield window
            window, size = [], 0
        window.append(read)
        size += read.size
    if window:
        yield window
