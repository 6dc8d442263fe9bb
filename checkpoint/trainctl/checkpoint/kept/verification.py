"""Reads every byte of a checkpoint and compares it with what the manifests say. Needs no torch.

A file of the attempt is listed with its size; part manifests and artifacts have a sha256, data files a checksum for the
header and one for each block.
"""

from __future__ import annotations

import itertools
import mmap
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from trainctl.checkpoint.load.batches import batches
from trainctl.checkpoint.load.block_check import BlockCheck
from trainctl.checkpoint.load.load_watch import Progress, unwatched
from trainctl.checkpoint.manifest.affected import said, tensors_behind
from trainctl.checkpoint.manifest.checksum import PIECE_BYTES, check_algorithm
from trainctl.checkpoint.manifest.reading import read_artifact, read_part, read_root, unlike_files
from trainctl.checkpoint.manifest.records import PartManifest, PartReport, RootManifest, StoredFile
from trainctl.checkpoint.manifest.rereads import Rereads
from trainctl.checkpoint.storage.at_once import at_once
from trainctl.checkpoint.storage.errors import storage_errors
from trainctl.checkpoint.storage.opening import open_storage
from trainctl.checkpoint.storage.port import RangeRead, Storage
from trainctl.core.errors import CheckpointError, DamagedCheckpointError
from trainctl.core.records.generation import CheckpointRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What a look at every byte found.

    Attributes:
        files: files that the manifests list, the root manifest among them.
        size_bytes: of all of them but the root manifest.
        damage: what is wrong with each file that is not as it was saved; empty if the checkpoint is whole.
        healed_reads: what came with wrong bytes and, read again, was right: no damage, but something changes bytes on
            their way.
        certain: all of ``damage`` is of bytes that are not there or not those that were saved; False if something is
            only unknown to this version, such as a kind of checksum, and may be right for a newer one.
    """

    files: int
    size_bytes: int
    damage: tuple[str, ...]
    healed_reads: int = 0
    certain: bool = True


def verify(ref: CheckpointRef, *, progress: Progress = unwatched, pause: Callable[[], None] | None = None) -> Verified:
    """Reads all files of a checkpoint, block by block, whatever its size.

    Args:
        ref: which one.
        progress: told after every block; what a damaged file did not let it read counts as read.
        pause: called after every few megabytes; with it all is read on this thread alone, to be in nobody's way.

    Raises:
        CheckpointError: its root manifest is missing, unusable or not the one that was committed.
    """
    with storage_errors(f"reading the checkpoint {ref.uri}"):
        storage = open_storage(ref.uri)
        rereads = Rereads()
        root, _ = read_root(storage, expected_sha256=ref.manifest_sha256, rereads=rereads)
        seen = _Seen(root, progress)
        look = _Look(storage, root, unlike_files(storage, root), rereads, seen, pause)
        damage = tuple(what for _, what in look.damage())
        return Verified(
            files=len(root.stored_files) + 1,
            size_bytes=seen.total_bytes,
            damage=damage,
            healed_reads=rereads.healed,
            certain=not look.unknown,
        )


def damaged_files(storage: Storage, root: RootManifest, *, progress: Progress = unwatched) -> Mapping[str, str]:
    """What is wrong with each file of an attempt that is missing or not as it was saved, by its path.

    Args:
        storage: opened at the attempt.
        root: of the attempt.
        progress: as ``verify``.
    """
    return dict(_Look(storage, root, unlike_files(storage, root), Rereads(), _Seen(root, progress)).damage())


class _Seen:
    """How much has been read; a file that all who wrote to it are dealt with counts whole. Threads may share it."""

    def __init__(self, root: RootManifest, progress: Progress) -> None:
        self._left = {file.path: file.size_bytes for file in root.stored_files}
        self._listed = Counter(file.path for part in root.parts for file in part.files)
        self._progress = progress
        self._lock = threading.Lock()
        self._done_bytes = 0
        self.total_bytes = sum(self._left.values())

    def block(self, path: str, size_bytes: int) -> None:
        """Some more of a file; its header counts once, however many writers' part it is in."""
        with self._lock:
            self._count(path, size_bytes)

    def file(self, path: str) -> None:
        """Done with a file, or with what one writer has in it."""
        with self._lock:
            self._listed[path] -= 1
            if self._listed[path] <= 0:
                self._count(path, self._left[path])

    def _count(self, path: str, size_bytes: int) -> None:
        size_bytes = min(size_bytes, self._left[path])
        self._left[path] -= size_bytes
        self._done_bytes += size_bytes
        self._progress(self._done_bytes, self.total_bytes)


@dataclass(frozen=True, slots=True)
class _Look:
    """One look at every byte.

    Attributes:
        storage: opened at the attempt.
        root: of the attempt.
        unlike: what is wrong with files that are missing or of another size.
        rereads: told what was right only when it was read again.
        seen: told how far it is.
        pause: as ``verify``.
        unknown: files with something that this version does not know, which is counted as damage all the same.
    """

    storage: Storage
    root: RootManifest
    unlike: Mapping[str, str]
    rereads: Rereads
    seen: _Seen
    pause: Callable[[], None] | None = None
    unknown: list[str] = field(default_factory=list[str])

    def damage(self) -> Iterator[tuple[str, str]]:
        """Each file that is not as it was saved, and what is wrong with it, in the order of the manifest."""
        if self.pause is None:
            parts = at_once(self.storage, lambda report: tuple(self._damage_of_part(report)), self.root.parts)
            yield from itertools.chain.from_iterable(parts)
        else:
            yield from itertools.chain.from_iterable(map(self._damage_of_part, self.root.parts))
        for file in self.root.beside:
            try:
                self._refuse_unlike(file)
                read_artifact(self.storage, file, rereads=self.rereads)
            except CheckpointError as error:
                yield file.path, self._said(file.path, error)
            self.seen.file(file.path)

    def _damage_of_part(self, report: PartReport) -> Iterator[tuple[str, str]]:
        """Without its part manifest nobody knows what the data files of a writer hold: they only have to be there."""
        part = None
        try:
            self._refuse_unlike(report.manifest)
            part = read_part(self.storage, self.root, report, rereads=self.rereads)
            check_algorithm(part.checksum, where=f"{self.storage.uri}/{report.manifest.path}")
        except CheckpointError as error:
            yield report.manifest.path, self._said(report.manifest.path, error)
        self.seen.file(report.manifest.path)
        for index, file in enumerate(report.files):
            try:
                self._refuse_unlike(file)
                if part is not None:
                    self._check_blocks(part, index)
            except CheckpointError as error:
                cut = said(self._behind(part, file)) if part is not None and file.path in self.unlike else ""
                yield file.path, self._said(file.path, error) + cut
            self.seen.file(file.path)

    def _behind(self, part: PartManifest, file: StoredFile) -> Iterator[str]:
        return tensors_behind(part, file.path, self.storage.size(file.path) or 0)

    def _said(self, path: str, error: CheckpointError) -> str:
        if not isinstance(error, DamagedCheckpointError):
            self.unknown.append(path)
        return str(error)

    def _refuse_unlike(self, file: StoredFile) -> None:
        """Raises: CheckpointError: the file is missing, or has another size."""
        if file.path in self.unlike:
            raise DamagedCheckpointError(self.unlike[file.path])

    def _check_blocks(self, part: PartManifest, index: int) -> None:
        """Raises: CheckpointError: names the first block of a data file that is not what was saved."""
        path = part.files[index].path
        check = BlockCheck(self.storage, self.rereads)
        room = memoryview(b"")
        for batch in batches(_blocks(part, index)):
            size_bytes = sum(block.size for block in batch)
            if size_bytes > len(room):
                # Of the system's own: what threads that come and go free is kept for each of them by the allocator.
                room = memoryview(mmap.mmap(-1, size_bytes))
            ends = itertools.accumulate(block.size for block in batch)
            ranges = [RangeRead(b.begin, room[end - b.size : end]) for b, end in zip(batch, ends, strict=True)]
            self.storage.read_ranges(path, ranges)
            for block, read in zip(batch, ranges, strict=True):
                check.check(path, read, block.checksums, block.block_bytes, block.what)
                self.seen.block(path, block.size)
            if self.pause is not None:
                self.pause()


class _Blocks(NamedTuple):
    """Consecutive ones of a data file; ``what`` is in them."""

    path: str
    begin: int
    size: int
    block_bytes: int
    checksums: tuple[str, ...]
    what: str


def _blocks(part: PartManifest, index: int) -> Iterator[_Blocks]:
    """All of a data file, in its order."""
    header = part.files[index]
    found = [_Blocks(header.path, 0, header.header_bytes, header.header_bytes, (header.header_checksum,), "its header")]
    count = max(1, PIECE_BYTES // part.block_bytes)
    for tensor in part.tensors:
        for chunk in (chunk for chunk in tensor.chunks if chunk.file == index):
            for first in range(0, len(chunk.checksums), count):
                begin = first * part.block_bytes
                size = min(count * part.block_bytes, chunk.size_bytes - begin)
                expected, what = chunk.checksums[first : first + count], f"{tensor.kind} of {tensor.fqn}"
                found.append(_Blocks(header.path, chunk.begin_bytes + begin, size, part.block_bytes, expected, what))
    return iter(sorted(found))
