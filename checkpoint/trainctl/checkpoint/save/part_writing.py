"""Writes one writer's part: its data files block by block, and after them the manifest that says what is in them.

Where the bytes come from is the caller's: live tensors, copies, or another checkpoint. Needs no torch.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence

from trainctl.checkpoint.callbacks import unseen
from trainctl.checkpoint.layout.key import StateKey
from trainctl.checkpoint.layout.region import Shape, order_of
from trainctl.checkpoint.manifest.checksum import ALGORITHM, BLOCK_BYTES, checksum, checksums
from trainctl.checkpoint.manifest.codec import dump_part, sha256
from trainctl.checkpoint.manifest.contents import held_rows
from trainctl.checkpoint.manifest.names import data_path, part_path
from trainctl.checkpoint.manifest.records import (
    TCF_VERSION,
    ChunkRecord,
    FileRecord,
    PartManifest,
    PartReport,
    StoredFile,
    TensorRecord,
)
from trainctl.checkpoint.monitor import CHECKSUM
from trainctl.checkpoint.save.attempts import Attempt
from trainctl.checkpoint.save.data_file import MAX_FILE_BYTES, Entry, file_header, file_metadata, into_files
from trainctl.checkpoint.save.model_files import ModelFiles
from trainctl.checkpoint.stopwatch import timed
from trainctl.checkpoint.storage.errors import storage_errors
from trainctl.checkpoint.storage.port import RangeWrite, Storage
from trainctl.core.system.faults import FaultPlan

_HEADER_WRITER = 0
Blocks = Callable[[Entry], Iterable[memoryview]]
"""The bytes of an entry in pieces of ``PIECE_BYTES``; the last may be shorter. A piece stays as it is once given."""


def write_part(
    storage: Storage,
    attempt: Attempt,
    *,
    writer: int,
    entries: Collection[Entry],
    shapes: Mapping[StateKey, Shape],
    blocks: Blocks,
    faults: FaultPlan,
    alive: Callable[[], None],
    confirm: Callable[[], None],
    wrote: Callable[[int], None] = unseen,
    max_file_bytes: int = MAX_FILE_BYTES,
    model_files: ModelFiles | None = None,
) -> PartReport:
    """Writes one writer's data files and, after them, its part manifest; all durable on return.

    Args:
        storage: opened at the root of all checkpoints.
        attempt: what it is a part of.
        writer: which one.
        entries: what to write.
        shapes: of the whole state, whatever part of it this writer has.
        blocks: gives the bytes of each.
        faults: armed faults.
        alive: called for every block.
        confirm: called before the part manifest is written; what it raises ends the part.
        wrote: told the size of every block that the storage took.
        max_file_bytes: size of one data file, at most.
        model_files: of the attempt, in layout ``hf``: entries of the model go there, where other writers' are, too.

    Raises:
        CheckpointError: the storage refused; what this writer had written is removed. In files that several writers
            share it stays until the attempt is discarded.
    """
    shared = [entry for entry in entries if model_files is not None and model_files.holds(entry)]
    groups = into_files(set(entries).difference(shared), max_file_bytes)
    paths = [data_path(writer, index) for index in range(len(groups))]
    with storage_errors(f"saving {attempt} as writer {writer} to {storage.uri}"), _cleaning(storage, attempt, paths):
        files: list[FileRecord] = []
        written = _Written(blocks, alive, wrote)
        for index, (path, group) in enumerate(zip(paths, groups, strict=True)):
            faults.reach("checkpoint.write", step=attempt.step, rank=writer)
            header = _header(group, attempt)
            size = storage.write_file(f"{attempt.folder}/{path}", written.file(index, header, group))
            files.append(_file_record(path, size, header))
        if model_files is not None:
            faults.reach("checkpoint.write", step=attempt.step, rank=writer)
            files += _write_shared(storage, attempt, model_files, shared, written, writer=writer, first=len(files))
        manifest = dump_part(_part_manifest(attempt, writer, files, written.chunks))
        confirm()
        storage.write_file(f"{attempt.folder}/{part_path(writer)}", [manifest])
    return PartReport(
        writer=writer,
        attempt=attempt.attempt,
        manifest=StoredFile(path=part_path(writer), size_bytes=len(manifest), sha256=sha256(manifest)),
        files=tuple(StoredFile(path=f.path, size_bytes=f.size_bytes) for f in files),
        data_bytes=sum(entry.size_bytes for entry in entries),
        held=held_rows(shapes, ((entry.key, entry.region) for entry in entries)),
    )


def _part_manifest(
    attempt: Attempt, writer: int, files: Sequence[FileRecord], chunks: Mapping[Entry, ChunkRecord]
) -> PartManifest:
    return PartManifest(
        tcf=TCF_VERSION,
        writer=writer,
        step=attempt.step,
        attempt=attempt.attempt,
        checksum=ALGORITHM,
        block_bytes=BLOCK_BYTES,
        files=tuple(files),
        tensors=_tensor_records(chunks),
    )


def _header(group: Sequence[Entry], attempt: Attempt) -> bytes:
    entries = [(e.name, e.key.dtype, e.stored_shape, e.size_bytes) for e in group]
    return file_header(entries, file_metadata(attempt.step, attempt.attempt))


def _file_record(path: str, size: int, header: bytes) -> FileRecord:
    return FileRecord(path=path, size_bytes=size, header_bytes=len(header), header_checksum=checksum(header))


def _write_shared(
    storage: Storage,
    attempt: Attempt,
    model_files: ModelFiles,
    entries: Sequence[Entry],
    written: _Written,
    *,
    writer: int,
    first: int,
) -> list[FileRecord]:
    """Writes entries where they belong in the files of all writers, which need not wait for each other.

    Every byte has one writer, so that a file has its size when all are done. One writes the headers.
    """
    places: dict[int, list[tuple[int, Entry]]] = {}
    for entry in entries:
        number, begin = model_files.place(entry)
        places.setdefault(number, []).append((begin, entry))
    records: list[FileRecord] = []
    for number, file in enumerate(model_files.files):
        own = sorted(places.get(number, ()), key=lambda place: place[0])
        if not own and writer != _HEADER_WRITER:
            continue
        header = [RangeWrite(0, file.header)] if writer == _HEADER_WRITER else []
        bodies = [written.ranges(entry, file=first + len(records), begin=begin) for begin, entry in own]
        storage.write_ranges(f"{attempt.folder}/{file.path}", itertools.chain(header, *bodies))
        records.append(_file_record(file.path, file.size_bytes, file.header))
    return records


class _Written:
    """Streams entries block by block and notes the checksums on the way.

    Attributes:
        chunks: where each entry lies, as far as its blocks have been used up.
    """

    def __init__(self, blocks: Blocks, alive: Callable[[], None], wrote: Callable[[int], None]) -> None:
        self._blocks = blocks
        self._alive = alive
        self._wrote = wrote
        self.chunks: dict[Entry, ChunkRecord] = {}

    def file(self, index: int, header: bytes, group: Sequence[Entry]) -> Iterator[memoryview | bytes]:
        """Header and bodies of a data file."""
        yield header
        position = len(header)
        for entry in group:
            yield from self.body(entry, file=index, begin=position)
            position += entry.size_bytes

    def ranges(self, entry: Entry, *, file: int, begin: int) -> Iterator[RangeWrite]:
        """The same blocks, each with its place."""
        position = begin
        for block in self.body(entry, file=file, begin=begin):
            yield RangeWrite(position, block)
            position += len(block)

    def body(self, entry: Entry, *, file: int, begin: int) -> Iterator[memoryview]:
        """The blocks of one entry that lies at ``begin`` of the part's file of this index."""
        found: list[str] = []
        for block in self._blocks(entry):
            with timed(CHECKSUM):
                found += checksums(block, BLOCK_BYTES)
            self._alive()
            yield block
            self._wrote(len(block))
        self.chunks[entry] = ChunkRecord.of(
            entry.region, file=file, begin_bytes=begin, size_bytes=entry.size_bytes, checksums=tuple(found)
        )


def _tensor_records(chunks: Mapping[Entry, ChunkRecord]) -> tuple[TensorRecord, ...]:
    grouped: dict[StateKey, list[Entry]] = {}
    for entry in sorted(chunks, key=lambda e: (e.key, order_of(e.region))):
        grouped.setdefault(entry.key, []).append(entry)
    return tuple(
        TensorRecord(
            fqn=key.fqn,
            kind=key.kind,
            dtype=key.dtype,
            instance=key.instance,
            shape=entries[0].shape,
            chunks=tuple(chunks[entry] for entry in entries),
        )
        for key, entries in grouped.items()
    )


@contextlib.contextmanager
def _cleaning(storage: Storage, attempt: Attempt, paths: Sequence[str]) -> Generator[None, None, None]:
    """A part that failed leaves nothing behind: on a full disk, its bytes are the ones that are missing."""
    try:
        yield
    except BaseException:
        for path in paths:
            with contextlib.suppress(OSError):
                storage.delete(f"{attempt.folder}/{path}")
        raise
