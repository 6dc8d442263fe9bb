"""Reads parts of tensors out of data files: in file order, in large requests, each block verified before use.

Memory is bounded by one batch, whatever the size of the checkpoint. Needs neither torch nor numpy.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import NamedTuple

from trainctl.checkpoint.callbacks import unseen
from trainctl.checkpoint.layout.copy_plan import Transfer
from trainctl.checkpoint.layout.key import StateKey
from trainctl.checkpoint.layout.layout import file_holder
from trainctl.checkpoint.layout.region import Flat, Region, Shape, part_of
from trainctl.checkpoint.load.batches import batches
from trainctl.checkpoint.load.block_check import BlockCheck
from trainctl.checkpoint.load.block_read import BlockRead
from trainctl.checkpoint.load.readers import Readers, reader_of
from trainctl.checkpoint.manifest.affected import said, tensors_behind
from trainctl.checkpoint.manifest.checksum import PIECE_BYTES, check_algorithm
from trainctl.checkpoint.manifest.records import ChunkRecord, FileRecord, PartManifest, RootManifest, TensorRecord
from trainctl.checkpoint.manifest.rereads import Rereads
from trainctl.checkpoint.monitor import COPY, READ, VERIFY
from trainctl.checkpoint.stopwatch import Stopwatch, timed
from trainctl.checkpoint.storage.at_once import at_once
from trainctl.checkpoint.storage.port import RangeRead, Storage
from trainctl.core.errors import DamagedCheckpointError

Place = Callable[[BlockRead], memoryview | None]
"""Memory of the block's size, into which it may be read before it is verified; None: there is none."""
Take = Callable[[BlockRead, memoryview], None]


def _nowhere(read: BlockRead) -> None:
    """For those who take all blocks one by one."""


class _Chunk(NamedTuple):
    shape: Shape
    record: ChunkRecord
    region: Region
    block_bytes: int


class BlockReader:
    """Turns transfers out of the files of one attempt into verified bytes.

    Args:
        storage: opened at the attempt.
        root: of the attempt.
        parts: of those writers whose files are read.
        rereads: told what was right only when it was read again.

    Raises:
        CheckpointError: the checksums are of an unknown kind.
    """

    def __init__(
        self,
        storage: Storage,
        root: RootManifest,
        parts: Sequence[PartManifest],
        rereads: Rereads | None = None,
    ) -> None:
        self._storage = storage
        self._check = BlockCheck(storage, rereads or Rereads())
        self._parts = parts
        self._headers = tuple(dict.fromkeys(file for part in parts for file in part.files))
        self._records: dict[StateKey, list[tuple[PartManifest, TensorRecord]]] = {}
        self._chunks: dict[StateKey, dict[str, list[_Chunk]]] = {}
        version = root.version
        for part in parts:
            check_algorithm(part.checksum, where=f"{storage.uri}, part of writer {part.writer}")
            for tensor in part.tensors:
                self._records.setdefault(tensor.key(version), []).append((part, tensor))

    def plan(self, transfers: Iterable[Transfer], readers: Readers) -> list[BlockRead]:
        """The blocks that this rank takes, whoever of those that load together reads them, by file and position.

        Args:
            transfers: of what this rank wants, or of more than that.
            readers: says who takes and reads what.
        """
        whole = {(t.src_holder, t.src_key, t.dst_key): t for t in transfers}.values()
        reads = [read for transfer in whole for read in self._blocks(transfer, readers)]
        reads.sort(key=lambda r: (r.path, r.begin, r.transfer.dst_key))
        return reads

    def verify_headers(self, paths: Collection[str]) -> None:
        """Sees that the headers of some of the data files are as written.

        Raises:
            CheckpointError: names the first that is not.
        """

        def verify(file: FileRecord) -> None:
            header = RangeRead(0, memoryview(bytearray(file.header_bytes)))
            self._storage.read_ranges(file.path, [header])
            try:
                self._check.check(file.path, header, (file.header_checksum,), file.header_bytes, "its header")
            except DamagedCheckpointError as error:
                names = (name for part in self._parts for name in tensors_behind(part, file.path))
                raise DamagedCheckpointError(f"{error}{said(names)}", hint=error.hint) from error

        at_once(self._storage, verify, [file for file in self._headers if file.path in paths])

    def read(self, reads: Sequence[BlockRead]) -> Iterator[tuple[BlockRead, memoryview]]:
        """The bytes of each, verified, one after the other.

        Raises:
            CheckpointError: a block does not have its checksum; names file, range and tensor.
        """
        for batch in batches(reads):
            yield from self._fill(batch, _nowhere, bytearray)

    def read_at_once(
        self,
        reads: Sequence[BlockRead],
        place: Place,
        take: Take,
        alive: Callable[[], None],
        *,
        watch: Stopwatch | None = None,
        moved: Callable[[int], None] = unseen,
    ) -> None:
        """Reads with as many threads as the storage bears.

        Args:
            reads: as ``plan`` made them.
            place: where a block's bytes belong, if they can be read there; called by any of the threads.
            take: called with the bytes of the others, in memory that is used again; by any of the threads.
            alive: called by the caller's thread, every few megabytes.
            watch: takes the seconds of all threads.
            moved: told as often how many bytes were read.

        Raises:
            CheckpointError: as ``read``; some blocks may have been placed.
        """
        memory = threading.local()

        def scratch(size: int) -> bytearray:
            found: bytearray = getattr(memory, "bytes", bytearray())
            if len(found) < size:
                found = memory.bytes = bytearray(size)
            return found

        def deal_with(batch: Sequence[BlockRead]) -> int:
            with (watch or Stopwatch()).measuring(), timed(COPY):
                for read, wanted in self._fill(batch, place, scratch):
                    take(read, wanted)
            return sum({read.begin: read.size for read in batch}.values())

        with ThreadPoolExecutor(self._storage.requests_at_once, "checkpoint-read") as pool:
            begun = [pool.submit(deal_with, batch) for batch in batches(reads)]
            try:
                for done in as_completed(begun):
                    moved(done.result())
                    alive()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _chunks_of(self, key: StateKey) -> Mapping[str, Sequence[_Chunk]]:
        """Where a tensor lies, by file; found when it is asked for first."""
        found = self._chunks.get(key)
        if found is None:
            found = self._chunks[key] = {}
            for part, tensor in self._records.get(key, ()):
                for record in tensor.chunks:
                    chunk = _Chunk(tensor.shape, record, record.region, part.block_bytes)
                    found.setdefault(file_holder(part.files[record.file].path), []).append(chunk)
        return found

    def _blocks(self, transfer: Transfer, readers: Readers) -> Iterator[BlockRead]:
        item = transfer.src_key.item_bytes
        path = transfer.src_holder.removeprefix("file:")
        for chunk in self._chunks_of(transfer.src_key).get(transfer.src_holder, ()):
            region, block_bytes = chunk.region, chunk.block_bytes
            for stretch in readers.stretches(transfer.dst_key, region, block_bytes // item):
                if readers.rank not in stretch.takers:
                    continue
                for start, stop in _pieces(stretch.first, stretch.stop, block_bytes):
                    begin, end = start * block_bytes, min(stop * block_bytes, chunk.record.size_bytes)
                    position = chunk.record.begin_bytes + begin
                    yield BlockRead(
                        transfer,
                        part_of(region, Flat(begin // item, end // item)),
                        path,
                        position,
                        end - begin,
                        block_bytes,
                        chunk.record.checksums[start:stop],
                        stretch.takers,
                        reader_of(stretch.takers, path, position),
                    )

    def _fill(
        self, batch: Sequence[BlockRead], place: Place, scratch: Callable[[int], bytearray]
    ) -> Iterator[tuple[BlockRead, memoryview]]:
        """Reads and verifies a batch of blocks of one file; yields those that were not placed.

        What is read for several tensors shares its bytes: a block is placed only where it is for one.
        """
        blocks = {read.begin: read for read in batch}
        times = Counter(read.begin for read in batch)
        alone = (read for begin, read in blocks.items() if times[begin] == 1)
        placed = {read.begin: found for read in alone if (found := place(read)) is not None}
        memory = dict(placed)
        left = [read for begin, read in blocks.items() if begin not in placed]
        room = memoryview(scratch(sum(read.size for read in left)))
        position = 0
        for read in left:
            memory[read.begin] = room[position : position + read.size]
            position += read.size
        with timed(READ):
            self._storage.read_ranges(batch[0].path, [RangeRead(begin, memory[begin]) for begin in blocks])
        with timed(VERIFY):
            for begin, read in blocks.items():
                wanted = RangeRead(begin, memory[begin])
                self._check.check(read.path, wanted, read.checksums, read.block_bytes, str(read.transfer.src_key))
        for read in batch:
            if read.begin not in placed:
                yield read, memory[read.begin]


def _pieces(first: int, stop: int, block_bytes: int) -> Iterator[tuple[int, int]]:
    """Blocks ``first <= i < stop`` of a chunk in pieces that are read in one go; they end at multiples of that."""
    count = max(1, PIECE_BYTES // block_bytes)
    while first < stop:
        end = min(stop, (first // count + 1) * count)
        yield first, end
        first = end
