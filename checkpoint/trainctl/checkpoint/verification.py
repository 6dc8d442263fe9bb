"""Reads every byte of a checkpoint and compares it with what the manifests say. Needs no torch.

A file of the attempt is listed with its size; part manifests and artifacts have a sha256, data files a checksum for the
header and one for each block.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from trainctl.checkpoint.attempts import storage_errors
from trainctl.checkpoint.load_watch import Progress, unwatched
from trainctl.checkpoint.manifest.checksum import check_algorithm, checksum
from trainctl.checkpoint.manifest.reading import check_size, read_artifact, read_part, read_root
from trainctl.checkpoint.manifest.records import PartManifest, PartReport, RootManifest
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
    """

    files: int
    size_bytes: int
    damage: tuple[str, ...]


def verify(ref: CheckpointRef, *, progress: Progress = unwatched) -> Verified:
    """Reads all files of a checkpoint, block by block, whatever its size.

    Args:
        ref: which one.
        progress: told after every block; what a damaged file did not let it read counts as read.

    Raises:
        CheckpointError: its root manifest is missing, unusable or not the one that was committed.
    """
    with storage_errors(f"reading the checkpoint {ref.uri}"):
        storage = open_storage(ref.uri)
        root, _ = read_root(storage, expected_sha256=ref.manifest_sha256)
        seen = _Seen(root, progress)
        damage = tuple(_damage(storage, root, seen))
        return Verified(files=len(root.stored_files) + 1, size_bytes=seen.total_bytes, damage=damage)


class _Seen:
    """How much has been read; a file that all who wrote to it are dealt with counts whole."""

    def __init__(self, root: RootManifest, progress: Progress) -> None:
        self._left = {file.path: file.size_bytes for file in root.stored_files}
        self._listed = Counter(file.path for part in root.parts for file in part.files)
        self._progress = progress
        self._done_bytes = 0
        self.total_bytes = sum(self._left.values())

    def block(self, path: str, size_bytes: int) -> None:
        """Some more of a file; its header counts once, however many writers' part it is in."""
        size_bytes = min(size_bytes, self._left[path])
        self._left[path] -= size_bytes
        self._done_bytes += size_bytes
        self._progress(self._done_bytes, self.total_bytes)

    def file(self, path: str) -> None:
        """Done with a file, or with what one writer has in it."""
        self._listed[path] -= 1
        if self._listed[path] <= 0:
            self.block(path, self._left[path])


def _damage(storage: Storage, root: RootManifest, seen: _Seen) -> Iterator[str]:
    for report in root.parts:
        yield from _damage_of_part(storage, root, report, seen)
    for file in root.beside:
        try:
            check_size(storage, file)
            read_artifact(storage, file)
        except CheckpointError as error:
            yield str(error)
        seen.file(file.path)


def _damage_of_part(storage: Storage, root: RootManifest, report: PartReport, seen: _Seen) -> Iterator[str]:
    """Without its part manifest nobody knows what the data files of a writer hold: they only have to be there."""
    part = None
    try:
        check_size(storage, report.manifest)
        part = read_part(storage, root, report)
        check_algorithm(part.checksum, where=f"{storage.uri}/{report.manifest.path}")
    except CheckpointError as error:
        yield str(error)
    seen.file(report.manifest.path)
    for index, file in enumerate(report.files):
        try:
            check_size(storage, file)
            if part is not None:
                _check_blocks(storage, part, index, seen)
        except CheckpointError as error:
            yield str(error)
        seen.file(file.path)


def _check_blocks(storage: Storage, part: PartManifest, index: int, seen: _Seen) -> None:
    """Raises: CheckpointError: names the first block of a data file that is not what was saved."""
    path = part.files[index].path
    for begin, size, expected, what in _blocks(part, index):
        buffer = memoryview(bytearray(size))
        storage.read_ranges(path, [RangeRead(begin, buffer)])
        if checksum(buffer) != expected:
            raise DamagedCheckpointError(
                f"{storage.uri}/{path} is corrupt: bytes {begin}:{begin + size} ({what}) do not have their checksum"
            )
        seen.block(path, size)


def _blocks(part: PartManifest, index: int) -> Iterator[tuple[int, int, str, str]]:
    """Begin, size and checksum of all blocks of a data file, and what is in them; in the order of the file."""
    header = part.files[index]
    blocks = [(0, header.header_bytes, header.header_checksum, "its header")]
    for tensor in part.tensors:
        for chunk in (chunk for chunk in tensor.chunks if chunk.file == index):
            for number, expected in enumerate(chunk.checksums):
                begin = number * part.block_bytes
                size = min(part.block_bytes, chunk.size_bytes - begin)
                blocks.append((chunk.begin_bytes + begin, size, expected, f"{tensor.kind} of {tensor.fqn}"))
    return iter(sorted(blocks))
