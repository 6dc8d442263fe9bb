"""Reads runs of tensors out of data files: in file order, in large requests, each block verified before use.

Memory is bounded by one batch, whatever the size of the checkpoint. Needs neither torch nor numpy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from trainctl.checkpoint.layout.copy_plan import Transfer
from trainctl.checkpoint.layout.key import StateKey
from trainctl.checkpoint.layout.layout import file_holder
from trainctl.checkpoint.layout.region import Flat, Shape, offset_in, overlaps
from trainctl.checkpoint.manifest.checksum import check_algorithm, checksum
from trainctl.checkpoint.manifest.records import ChunkRecord, PartManifest, RootManifest
from trainctl.checkpoint.storage.port import RangeRead, Storage
from trainctl.core.errors import CheckpointError

_BATCH_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class BlockRead:
    """One checksummed block of a file and the run in it that is wanted.

    Attributes:
        transfer: what it is read for.
        run: elements wanted of it, inside ``transfer.region``.
        path: data file.
        begin: where the block begins in the file.
        size: bytes of the block.
        skip: bytes of the block before the first wanted element.
        checksum: of the whole block.
    """

    transfer: Transfer
    run: Flat
    path: str
    begin: int
    size: int
    skip: int
    checksum: str


@dataclass(frozen=True, slots=True)
class _Chunk:
    shape: Shape
    record: ChunkRecord
    block_bytes: int


class BlockReader:
    """Turns transfers out of the files of one attempt into verified bytes.

    Raises:
        CheckpointError: the checksums are of an unknown kind.
    """

    def __init__(self, storage: Storage, root: RootManifest, parts: Sequence[PartManifest]) -> None:
        self._storage = storage
        self._headers = [file for part in parts for file in part.files]
        self._chunks: dict[tuple[str, StateKey], list[_Chunk]] = {}
        for part in parts:
            check_algorithm(part.checksum, where=f"{storage.uri}, part of writer {part.writer}")
            for tensor in part.tensors:
                for record in tensor.chunks:
                    holder = file_holder(part.files[record.file].path)
                    chunk = _Chunk(tensor.shape, record, part.block_bytes)
                    self._chunks.setdefault((holder, tensor.key(root.version)), []).append(chunk)

    def plan(self, transfers: Iterable[Transfer], *, in_file_order: bool = True) -> list[BlockRead]:
        """The blocks to read, by file and position (or in the order of the transfers)."""
        reads = [read for transfer in transfers for read in self._blocks(transfer)]
        if in_file_order:
            reads.sort(key=lambda r: (r.path, r.begin, r.run.start))
        return reads

    def verify_headers(self) -> None:
        """Sees that the headers of the data files are as written.

        Raises:
            CheckpointError: names the first that is not.
        """
        for file in self._headers:
            buffer = memoryview(bytearray(file.header_bytes))
            self._storage.read_ranges(file.path, [RangeRead(0, buffer)])
            if checksum(buffer) != file.header_checksum:
                raise self._corrupt(file.path, 0, file.header_bytes, "its header")

    def read(self, reads: Sequence[BlockRead]) -> Iterator[tuple[BlockRead, memoryview]]:
        """The wanted bytes of each block, verified; memory is only reused when nobody refers to it any more.

        Raises:
            CheckpointError: a block does not have its checksum; names file, range and tensor.
        """
        for batch in _batches(reads):
            buffers = self._fetch(batch)
            for index, (read, buffer) in enumerate(zip(batch, buffers, strict=True)):
                verified = index > 0 and buffer is buffers[index - 1]
                if not verified and checksum(buffer) != read.checksum:
                    raise self._corrupt(read.path, read.begin, read.size, str(read.transfer.src_key))
                size = read.run.volume * read.transfer.src_key.item_bytes
                yield read, buffer[read.skip : read.skip + size]

    def _blocks(self, transfer: Transfer) -> Iterator[BlockRead]:
        item = transfer.src_key.item_bytes
        for chunk in self._chunks.get((transfer.src_holder, transfer.src_key), ()):
            block_bytes, record = chunk.block_bytes, chunk.record
            for run in overlaps(chunk.shape, record.region, transfer.region):
                first = offset_in(chunk.shape, record.region, run.start) * item
                last = first + run.volume * item
                for block in range(first // block_bytes, -(-last // block_bytes)):
                    begin = block * block_bytes
                    size = min(block_bytes, record.size_bytes - begin)
                    low, high = max(first, begin), min(last, begin + size)
                    wanted = Flat(run.start + (low - first) // item, run.start + (high - first) // item)
                    path = transfer.src_holder.removeprefix("file:")
                    where = record.begin_bytes + begin
                    yield BlockRead(transfer, wanted, path, where, size, low - begin, record.checksums[block])

    def _fetch(self, batch: Sequence[BlockRead]) -> list[memoryview]:
        """Reads a batch of blocks of one file into one buffer; blocks that touch in the file are one request.

        Several runs of one block get the same view of it.
        """
        buffer = memoryview(bytearray(sum({read.begin: read.size for read in batch}.values())))
        views: list[memoryview] = []
        requests: list[tuple[int, int, int]] = []  # offset in the file, begin and end in the buffer
        position = 0
        previous = -1
        for read in batch:
            if read.begin == previous:
                views.append(views[-1])
                continue
            previous, end = read.begin, position + read.size
            views.append(buffer[position:end])
            if requests and requests[-1][0] + requests[-1][2] - requests[-1][1] == read.begin:
                requests[-1] = (requests[-1][0], requests[-1][1], end)
            else:
                requests.append((read.begin, position, end))
            position = end
        self._storage.read_ranges(batch[0].path, [RangeRead(offset, buffer[a:b]) for offset, a, b in requests])
        return views

    def _corrupt(self, path: str, begin: int, size: int, what: str) -> CheckpointError:
        return CheckpointError(
            f"{self._storage.uri}/{path} is corrupt: bytes {begin}:{begin + size} ({what}) do not have their checksum",
            hint="resume from an older checkpoint, or restore the file from a copy",
        )


def _batches(reads: Sequence[BlockRead]) -> Iterator[list[BlockRead]]:
    batch: list[BlockRead] = []
    size = 0
    for read in reads:
        same_file = bool(batch) and batch[-1].path == read.path
        same_block = same_file and batch[-1].begin == read.begin
        added = 0 if same_block else read.size
        if batch and (not same_file or size + added > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(read)
        size += added
    if batch:
        yield batch
