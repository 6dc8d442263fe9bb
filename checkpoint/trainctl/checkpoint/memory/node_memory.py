"""One node's memory for snapshots: a folder of a memory file system, which outlives the workers that write to it.

A snapshot is an attempt in the format of checkpoints. A node has the root manifest and some of the parts: those of its
own workers, and copies of the parts of another node's. What is listed in the root manifest and is here at full size
counts; nothing else does.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from trainctl.checkpoint.kept.verification import damaged_files
from trainctl.checkpoint.load.load_watch import Progress, unwatched
from trainctl.checkpoint.manifest.names import ROOT_MANIFEST, attempt_folder, is_attempt, step_of
from trainctl.checkpoint.manifest.reading import read_root
from trainctl.checkpoint.manifest.records import PartReport, RootManifest, StoredFile
from trainctl.checkpoint.storage.local import LocalStorage
from trainctl.core.errors import CheckpointError
from trainctl.core.records.snapshot import SnapshotHeld, SnapshotRef

_ROOM_TO_LEAVE = 0.1
"""Of the file system: others use it, too (torch's own shared memory does)."""


class NoRoomError(CheckpointError):
    """The node has no memory for snapshots, or too little."""


class NodeMemory:
    """The snapshots of one job on this node.

    Args:
        folder: of the node, on a memory file system; need not exist.
        job: uid of the job.
    """

    def __init__(self, folder: Path, job: str) -> None:
        self._folder = folder / job

    @property
    def uri(self) -> str:
        """Where this job's snapshots are, as a storage."""
        return str(self._folder)

    def where(self, snapshot: SnapshotRef) -> Path:
        """Folder of one snapshot."""
        return self._folder / folder_of(snapshot)

    def make(self) -> None:
        """Makes the folder, for this user alone.

        Raises:
            OSError: the file system refuses.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def room_bytes(self) -> int:
        """How much may be put here now.

        Raises:
            OSError: the folder is not there.
        """
        found = os.statvfs(self._folder)
        return max(0, found.f_bavail * found.f_frsize - int(_ROOM_TO_LEAVE * found.f_blocks * found.f_frsize))

    def held(self) -> tuple[SnapshotHeld, ...]:
        """What is here of snapshots that are complete, oldest first; what cannot be read is none."""
        return tuple(sorted(self._held(), key=lambda held: held.snapshot))

    def root(self, snapshot: SnapshotRef) -> RootManifest:
        """The root manifest of a snapshot.

        Raises:
            CheckpointError: there is none, or it is unusable.
        """
        return read_root(LocalStorage(self.where(snapshot)))[0]

    def has(self, snapshot: SnapshotRef, file: StoredFile) -> bool:
        """Whether a file of a snapshot is here, at full size."""
        return LocalStorage(self.where(snapshot)).size(file.path) == file.size_bytes

    def drop_damaged(self, snapshot: SnapshotRef, *, progress: Progress = unwatched) -> Mapping[str, str]:
        """Removes the files of a snapshot that are here and not as they were saved; what was wrong with each, by path.

        Every byte is read, but only as far as the manifests that are here say what it should be: without the root
        manifest nothing is known, without that of a part nothing of its data.

        Raises:
            OSError: the memory cannot be read.
        """
        where = self.where(snapshot)
        try:
            root = self.root(snapshot)
        except CheckpointError as error:
            found = {ROOT_MANIFEST: str(error)}
        else:
            found = dict(damaged_files(LocalStorage(where), root, progress=progress))
        dropped = {path: what for path, what in found.items() if (where / path).is_file()}
        for path in dropped:
            (where / path).unlink(missing_ok=True)
        return dropped

    def attempts(self) -> tuple[str, ...]:
        """Folders of all attempts here, complete or not, relative to ``uri``."""
        steps = (step for step in _entries(self._folder) if step_of(step.name) is not None)
        found = (attempt for step in steps for attempt in _entries(step) if is_attempt(attempt.name))
        return tuple(str(attempt.relative_to(self._folder)) for attempt in found)

    def remove(self, attempts: Collection[str]) -> None:
        """Removes attempts; what somebody else removes meanwhile is gone as well."""
        for attempt in attempts:
            folder = self._folder / attempt
            shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(OSError):  # another attempt of the step is in it
                folder.parent.rmdir()

    def _held(self) -> Iterator[SnapshotHeld]:
        for attempt in self.attempts():
            try:
                root, _ = read_root(LocalStorage(self._folder / attempt))
                ref = SnapshotRef(lineage=root.lineage, step=root.step, attempt=root.attempt)
                here = sorted((part for part in root.parts if self._holds(ref, part)), key=lambda part: part.writer)
            except (CheckpointError, OSError):  # not completed here, or being removed
                continue
            yield held_of(ref, len(root.parts), here)

    def _holds(self, snapshot: SnapshotRef, part: PartReport) -> bool:
        return all(self.has(snapshot, file) for file in (part.manifest, *part.files))


def held_of(snapshot: SnapshotRef, parts: int, here: Sequence[PartReport]) -> SnapshotHeld:
    """What a node has of a snapshot of so many parts that has these, in the order of their writers."""
    size_bytes = sum(file.size_bytes for part in here for file in (part.manifest, *part.files))
    held = tuple(part.writer for part in here)
    return SnapshotHeld(snapshot=snapshot, parts=parts, held=held, size_bytes=size_bytes)


def folder_of(snapshot: SnapshotRef) -> str:
    """Where a snapshot lies in any node's memory, relative to ``NodeMemory.uri``: in the folder of its attempt."""
    return attempt_folder(snapshot.step, snapshot.attempt)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
