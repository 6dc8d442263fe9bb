"""Writes one writer's part: its data files block by block, and after them the manifest that says what is in them.

Where the bytes come from is the caller's: live tensors, copies, or another checkpoint. Needs no torch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from trainctl.checkpoint.attempts import Attempt, storage_errors
from trainctl.checkpoint.data_file import MAX_FILE_BYTES, Entry, file_header, into_files
from trainctl.checkpoint.layout.key import StateKey
from trainctl.checkpoint.manifest.checksum import ALGORITHM, BLOCK_BYTES, checksum
from trainctl.checkpoint.manifest.codec import dump_part, sha256
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
from trainctl.checkpoint.storage.port import Storage
from trainctl.core.system.faults import FaultPlan

Blocks = Callable[[Entry], Iterable[memoryview]]
"""The bytes of an entry in pieces of ``BLOCK_BYTES``; the last may be shorter. A piece stays as it is once given."""


def write_part(
    storage: Storage,
    attempt: Attempt,
    *,
    writer: int,
    entries: Collection[Entry],
    blocks: Blocks,
    faults: FaultPlan,
    alive: Callable[[], None],
    confirm: Callable[[], None],
    max_file_bytes: int = MAX_FILE_BYTES,
) -> PartReport:
    """Writes one writer's data files and, after them, its part manifest; all durable on return.

    Args:
        storage: opened at the root of all checkpoints.
        attempt: what it is a part of.
        writer: which one.
        entries: what to write.
        blocks: gives the bytes of each.
        faults: armed faults.
        alive: called for every block.
        confirm: called before the part manifest is written; what it raises ends the part.
        max_file_bytes: size of one data file, at most.

    Raises:
        CheckpointError: the storage refused; what this writer had written is removed.
    """
    groups = into_files(entries, max_file_bytes)
    paths = [data_path(writer, index) for index in range(len(groups))]
    with storage_errors(f"saving {attempt} as writer {writer} to {storage.uri}"), _cleaning(storage, attempt, paths):
        files: list[FileRecord] = []
        written = _Written(blocks, alive)
        for index, (path, group) in enumerate(zip(paths, groups, strict=True)):
            faults.reach("checkpoint.write", step=attempt.step, rank=writer)
            header = _header(group, attempt)
            size = storage.write_file(f"{attempt.folder}/{path}", written.file(index, header, group))
            record = FileRecord(path=path, size_bytes=size, header_bytes=len(header), header_checksum=checksum(header))
            files.append(record)
        part = PartManifest(
            tcf=TCF_VERSION,
            writer=writer,
            step=attempt.step,
            attempt=attempt.attempt,
            checksum=ALGORITHM,
            block_bytes=BLOCK_BYTES,
            files=tuple(files),
            tensors=_tensor_records(written.chunks),
        )
        manifest = dump_part(part)
        confirm()
        storage.write_file(f"{attempt.folder}/{part_path(writer)}", [manifest])
    return PartReport(
        writer=writer,
        attempt=attempt.attempt,
        manifest=StoredFile(path=part_path(writer), size_bytes=len(manifest), sha256=sha256(manifest)),
        files=tuple(StoredFile(path=f.path, size_bytes=f.size_bytes) for f in files),
        data_bytes=sum(entry.size_bytes for entry in entries),
    )


def _header(group: Sequence[Entry], attempt: Attempt) -> bytes:
    metadata = {"tcf": str(TCF_VERSION), "format": "pt", "step": str(attempt.step), "attempt": attempt.attempt}
    return file_header([(e.name, e.key.dtype, e.stored_shape, e.size_bytes) for e in group], metadata)


class _Written:
    """Streams entries block by block and notes the checksums on the way.

    Attributes:
        chunks: where each entry lies, as far as its blocks have been used up.
    """

    def __init__(self, blocks: Blocks, alive: Callable[[], None]) -> None:
        self._blocks = blocks
        self._alive = alive
        self.chunks: dict[Entry, ChunkRecord] = {}

    def file(self, index: int, header: bytes, group: Sequence[Entry]) -> Iterator[memoryview | bytes]:
        """Header and bodies of a data file."""
        yield header
        position = len(header)
        for entry in group:
            yield from self.body(entry, file=index, begin=position)
            position += entry.size_bytes

    def body(self, entry: Entry, *, file: int, begin: int) -> Iterator[memoryview]:
        """The blocks of one entry that lies at ``begin`` of the part's file of this index."""
        checksums = []
        for block in self._blocks(entry):
            checksums.append(checksum(block))
            self._alive()
            yield block
        self.chunks[entry] = ChunkRecord(
            file=file,
            begin_bytes=begin,
            size_bytes=entry.size_bytes,
            checksums=tuple(checksums),
            flat=(entry.run.start, entry.run.stop),
        )


def _tensor_records(chunks: Mapping[Entry, ChunkRecord]) -> tuple[TensorRecord, ...]:
    grouped: dict[StateKey, list[Entry]] = {}
    for entry in sorted(chunks, key=lambda e: (e.key, e.run)):
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
def _cleaning(storage: Storage, attempt: Attempt, paths: Sequence[str]) -> Iterator[None]:
    """A part that failed leaves nothing behind: on a full disk, its bytes are the ones that are missing."""
    try:
        yield
    except BaseException:
        for path in paths:
            with contextlib.suppress(OSError):
                storage.delete(f"{attempt.folder}/{path}")
        raise
