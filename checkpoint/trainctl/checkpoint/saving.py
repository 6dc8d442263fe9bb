"""Saving, the part that every rank does: deal the work, take the snapshot, write a part.

The steps are separate so that copying and writing can move off the training thread. Nothing counts before the seal.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch

from trainctl.checkpoint.attempts import Attempt, storage_errors
from trainctl.checkpoint.data_file import Entry, cut, file_header, into_files
from trainctl.checkpoint.layout.copy_plan import CopyPlan, copy_plan
from trainctl.checkpoint.layout.key import StateKey
from trainctl.checkpoint.layout.layout import Layout, replicated
from trainctl.checkpoint.layout.region import Flat, overlaps
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
from trainctl.checkpoint.monitor import CHECKSUM
from trainctl.checkpoint.state import LocalState, StateTensor
from trainctl.checkpoint.stopwatch import timed
from trainctl.checkpoint.storage.port import Storage
from trainctl.checkpoint.tensors import byte_view, run_view
from trainctl.core.errors import PlanError
from trainctl.core.system.faults import FaultPlan

MAX_FILE_BYTES = 5 << 30
"""Object stores copy single objects up to this size."""

Runs = Mapping[StateKey, tuple[Flat, ...]]
"""What one rank writes."""

EntryData = Mapping[Entry, torch.Tensor]
"""What to write, and the memory to write it from: until the write is over, nobody may change that."""


def nothing() -> None:
    """There is nothing to do."""


def unseen(size_bytes: int) -> None:
    """Nobody looks on."""


def assign(layout: Layout) -> Mapping[str, Runs]:
    """Deals every byte of the state to exactly one of the ranks that hold it, evenly in bytes: holder -> its runs.

    Every rank computes the same from the same layout, so nothing has to be exchanged.

    Raises:
        PlanError: parts of the state are held by nobody.
    """
    plan = copy_plan(layout, replicated(layout.shapes, ["file:all"]))
    if plan.missing:
        ranges = "\n".join(str(m) for m in plan.missing[:20])
        raise PlanError(f"expected every part of the state on some rank, but\n{ranges}")
    # No byte to deal, but the checkpoint has to know the tensor: from the first that has it.
    empty = {
        key: min(holder for holder, regions in placement.regions.items() if regions)
        for key, placement in layout.placements.items()
        if 0 in placement.shape
    }
    return _Assignment(plan, tuple(layout.holders), empty)


class _Assignment(Mapping[str, Runs]):
    """Each holder's runs, made when looked at: a rank needs only its own."""

    def __init__(self, plan: CopyPlan, holders: Sequence[str], empty: Mapping[StateKey, str]) -> None:
        self._plan = plan
        self._holders = dict.fromkeys(holders)
        self._empty = empty

    def __getitem__(self, holder: str) -> Runs:
        if holder not in self._holders:
            raise KeyError(holder)
        runs: dict[StateKey, tuple[Flat, ...]] = {}
        for t in self._plan.out_of(holder):
            runs[t.src_key] = (*runs.get(t.src_key, ()), t.region)
        return runs | {key: (Flat(0, 0),) for key, first in self._empty.items() if first == holder}

    def __iter__(self) -> Iterator[str]:
        return iter(self._holders)

    def __len__(self) -> int:
        return len(self._holders)


def entries_of(
    state: LocalState, assigned: Runs, *, max_entry_bytes: int = MAX_FILE_BYTES
) -> Iterator[tuple[StateTensor, Entry]]:
    """The assigned runs as entries of data files, each with the live tensor that holds it."""
    for t in state.tensors:
        for run in assigned.get(t.key, ()):
            for part in [run] if run.volume == 0 else overlaps(t.shape, t.region, run):
                for entry in cut(Entry(t.key, t.shape, part), max_entry_bytes):
                    yield t, entry


def live_data(state: LocalState, assigned: Runs, *, max_entry_bytes: int = MAX_FILE_BYTES) -> EntryData:
    """The assigned runs as views of the live tensors (copies only of tensors that are not contiguous)."""
    entries = entries_of(state, assigned, max_entry_bytes=max_entry_bytes)
    return {entry: run_view(t.tensor, t.shape, t.region, entry.run) for t, entry in entries}


def write_part(
    storage: Storage,
    attempt: Attempt,
    *,
    writer: int,
    data: EntryData,
    faults: FaultPlan,
    alive: Callable[[], None],
    confirm: Callable[[], None] = nothing,
    wrote: Callable[[int], None] = unseen,
    max_file_bytes: int = MAX_FILE_BYTES,
) -> PartReport:
    """Writes one writer's data files and, after them, its part manifest; all durable on return.

    Args:
        storage: opened at the root of all checkpoints.
        attempt: what it is a part of.
        writer: which one.
        data: what to write.
        faults: armed faults.
        alive: called for every block.
        confirm: called before the part manifest is written; what it raises ends the part.
        wrote: told the size of every block that the storage took.
        max_file_bytes: size of one data file, at most.

    Raises:
        CheckpointError: the storage refused; what this writer had written is removed.
    """
    groups = into_files(data, max_file_bytes)
    paths = [data_path(writer, index) for index in range(len(groups))]
    with storage_errors(f"saving {attempt} as writer {writer} to {storage.uri}"), _cleaning(storage, attempt, paths):
        files: list[FileRecord] = []
        chunks: dict[Entry, ChunkRecord] = {}
        for index, (path, group) in enumerate(zip(paths, groups, strict=True)):
            faults.reach("checkpoint.write", step=attempt.step, rank=writer)
            file = _DataFile(group, data, attempt, index)
            size = storage.write_file(f"{attempt.folder}/{path}", file.buffers(alive, wrote))
            header = checksum(file.header)
            files.append(FileRecord(path=path, size_bytes=size, header_bytes=len(file.header), header_checksum=header))
            chunks.update(file.chunks)
        part = PartManifest(
            tcf=TCF_VERSION,
            writer=writer,
            step=attempt.step,
            attempt=attempt.attempt,
            checksum=ALGORITHM,
            block_bytes=BLOCK_BYTES,
            files=tuple(files),
            tensors=_tensor_records(chunks),
        )
        manifest = dump_part(part)
        confirm()
        storage.write_file(f"{attempt.folder}/{part_path(writer)}", [manifest])
    return PartReport(
        writer=writer,
        attempt=attempt.attempt,
        manifest=StoredFile(path=part_path(writer), size_bytes=len(manifest), sha256=sha256(manifest)),
        files=tuple(StoredFile(path=f.path, size_bytes=f.size_bytes) for f in files),
        data_bytes=sum(entry.size_bytes for entry in data),
    )


class _DataFile:
    """Streams one data file block by block and notes the checksums on the way."""

    def __init__(self, group: Sequence[Entry], data: EntryData, attempt: Attempt, index: int) -> None:
        self._group = group
        self._data = data
        self._index = index
        metadata = {"tcf": str(TCF_VERSION), "format": "pt", "step": str(attempt.step), "attempt": attempt.attempt}
        self.header = file_header([(e.name, e.key.dtype, e.stored_shape, e.size_bytes) for e in group], metadata)
        self.chunks: dict[Entry, ChunkRecord] = {}

    def buffers(self, alive: Callable[[], None], wrote: Callable[[int], None]) -> Iterator[memoryview | bytes]:
        """Header and bodies, with a call of ``alive`` for each block; ``chunks`` is complete when this is used up."""
        yield self.header
        position = len(self.header)
        for entry in self._group:
            body = byte_view(self._data[entry].contiguous().cpu())
            checksums = []
            for start in range(0, len(body), BLOCK_BYTES):
                block = body[start : start + BLOCK_BYTES]
                with timed(CHECKSUM):
                    checksums.append(checksum(block))
                alive()
                yield block
                wrote(len(block))
            self.chunks[entry] = ChunkRecord(
                file=self._index,
                begin_bytes=position,
                size_bytes=len(body),
                checksums=tuple(checksums),
                flat=(entry.run.start, entry.run.stop),
            )
            position += len(body)


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
