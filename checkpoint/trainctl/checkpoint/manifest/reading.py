"""Reads the manifests of one attempt and sees that the files they list are there."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Container, Mapping, Sequence

from trainctl.checkpoint.layout.key import StateKey
from trainctl.checkpoint.layout.layout import Layout, file_holder
from trainctl.checkpoint.layout.placement import Placement
from trainctl.checkpoint.layout.region import Region, Shape
from trainctl.checkpoint.manifest.affected import tensors_in
from trainctl.checkpoint.manifest.codec import parse_contents, parse_part, parse_root, sha256
from trainctl.checkpoint.manifest.contents import ContentsTable, part_holder
from trainctl.checkpoint.manifest.names import ROOT_MANIFEST, artifact_name
from trainctl.checkpoint.manifest.records import ContentsManifest, PartManifest, PartReport, RootManifest, StoredFile
from trainctl.checkpoint.manifest.rereads import Rereads
from trainctl.checkpoint.storage.absence import why_nothing
from trainctl.checkpoint.storage.at_once import at_once
from trainctl.checkpoint.storage.port import Storage
from trainctl.core.errors import CheckpointError, DamagedCheckpointError

_EXPLAINED = 16
"""Of files that are not as they were saved: so many are looked into, which takes requests."""


def read_root(
    storage: Storage, folder: str = "", *, expected_sha256: str = "", rereads: Rereads | None = None
) -> tuple[RootManifest, str]:
    """The root manifest of the attempt in ``folder``, and its sha256.

    Args:
        storage: opened at the attempt, or above it.
        folder: of the attempt.
        expected_sha256: that it must have; empty: any.
        rereads: told what was right only when it was read again, here and below.

    Raises:
        CheckpointError: there is none (so the attempt was never completed), it is unusable, or not the one expected.
    """
    path = f"{folder}/{ROOT_MANIFEST}".lstrip("/")
    where = f"{storage.uri}/{path}"
    try:
        data = _read(storage, path, expected_sha256, rereads)
    except (FileNotFoundError, NotADirectoryError):
        entries = storage.list(folder)
        found = f"found {', '.join(entries[:5])}" if entries else why_nothing(storage, folder)
        missing = DamagedCheckpointError if expected_sha256 else CheckpointError
        raise missing(
            f"{where} is missing: expected a complete checkpoint, {found}",
            hint="check the path; an attempt without root manifest was interrupted and cannot be used",
        ) from None
    digest = sha256(data)
    if expected_sha256 and digest != expected_sha256:
        raise DamagedCheckpointError(
            f"{where}: expected the manifest with sha256 {expected_sha256}, found {digest}",
            hint="the folder was replaced since the checkpoint was committed; resume from another one",
        )
    return parse_root(data, where=where), digest


def _read(storage: Storage, path: str, expected_sha256: str, rereads: Rereads | None) -> bytes:
    """A file, read twice if it is not the one expected: it may have been changed on its way."""

    def right(data: bytes) -> bool:
        return sha256(data) == expected_sha256

    if not expected_sha256:
        return storage.read(path)
    data = storage.read(path, whole=right)
    if right(data):
        return data
    data = storage.read(path, whole=right)
    if right(data):
        (rereads or Rereads()).heal(f"{storage.uri}/{path}")
    return data


def check_files(storage: Storage, root: RootManifest, folder: str = "") -> None:
    """Sees that every file of the attempt is there with its size.

    Raises:
        CheckpointError: lists all that are not.
    """
    unlike = unlike_files(storage, root, folder)
    if unlike:
        explained = list(itertools.islice(unlike, _EXPLAINED))
        problems = {**unlike, **{path: unlike[path] + tensors_in(storage, root, path, folder) for path in explained}}
        raise DamagedCheckpointError(
            "\n".join([f"the checkpoint of step {root.step} is incomplete:", *problems.values()]),
            hint="resume from an older checkpoint, or restore the files from a copy",
        )


def unlike_files(storage: Storage, root: RootManifest, folder: str = "") -> Mapping[str, str]:
    """What is wrong with each file of the attempt that is missing, or has another size, by its path.

    Found by listings: there may be thousands of files, and a request for each would take long.
    """
    problems: dict[str, str] = {}
    listed: dict[str, Mapping[str, int]] = {}
    names: dict[str, frozenset[str]] = {}
    for file in root.stored_files:
        path = f"{folder}/{file.path}".lstrip("/")
        parent, _, name = path.rpartition("/")
        if parent not in listed:
            listed[parent] = _sizes(storage, parent)
        if listed[parent].get(name) == file.size_bytes:
            continue
        size = storage.size(path)  # a listing may lag behind
        if size is None:
            if parent not in names:
                names[parent] = frozenset(_names(storage, parent))
            what = (
                "is missing"
                if name not in names[parent]
                else "is no file: a folder, or a link to nothing, has its name"
            )
            problems[file.path] = f"{storage.uri}/{path} {what}"
        elif size != file.size_bytes:
            what = "truncated" if size < file.size_bytes else "longer than it was"
            problems[file.path] = f"{storage.uri}/{path} is {what}: expected {file.size_bytes} bytes, found {size}"
    return problems


def _sizes(storage: Storage, folder: str) -> Mapping[str, int]:
    """Nothing where listing is not allowed: each file can still be asked for."""
    try:
        return storage.sizes(folder)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            return {}
        raise


def _names(storage: Storage, folder: str) -> Sequence[str]:
    """As ``_sizes``."""
    try:
        return storage.list(folder)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            return ()
        raise


def read_parts(
    storage: Storage, root: RootManifest, only: Container[str] | None = None, *, rereads: Rereads | None = None
) -> tuple[PartManifest, ...]:
    """Part manifests of the attempt that ``storage`` is opened at, in the order of their writers.

    Args:
        storage: opened at the attempt.
        root: of the attempt.
        only: holder names (``part_holder``) of those to read; None: all.
        rereads: told what was right only when it was read again.

    Raises:
        CheckpointError: one is missing, corrupt, or of another attempt.
    """
    wanted = [report for report in root.parts if only is None or part_holder(report.writer) in only]
    return tuple(at_once(storage, lambda report: read_part(storage, root, report, rereads=rereads), wanted))


def read_contents(storage: Storage, root: RootManifest, *, rereads: Rereads | None = None) -> ContentsTable | None:
    """Which part holds what; None: the checkpoint is of an older version, which has no such table.

    Raises:
        CheckpointError: it is missing, corrupt, or of another attempt.
    """
    if root.contents is None:
        return None
    where = f"{storage.uri}/{root.contents.path}"
    contents = parse_contents(_listed(storage, root.contents, rereads), root.contents, where=where)
    _check_attempt(contents, root, where)
    return ContentsTable(contents, root.version)


def read_part(
    storage: Storage, root: RootManifest, report: PartReport, *, rereads: Rereads | None = None
) -> PartManifest:
    """The part manifest of one writer.

    Raises:
        CheckpointError: as ``read_parts``.
    """
    where = f"{storage.uri}/{report.manifest.path}"
    try:
        part = parse_part(_listed(storage, report.manifest, rereads), report.manifest, where=where)
        _check_attempt(part, root, where)
    except DamagedCheckpointError as error:
        lost = tensors_in(storage, root, report.manifest.path)
        raise DamagedCheckpointError(f"{error}{lost}", hint=error.hint) from error
    return part


def _listed(storage: Storage, file: StoredFile, rereads: Rereads | None) -> bytes:
    """A file that the root manifest lists."""
    try:
        return _read(storage, file.path, file.sha256, rereads)
    except FileNotFoundError:
        where = f"{storage.uri}/{file.path}"
        raise DamagedCheckpointError(f"{where} is missing", hint="resume from an older checkpoint") from None


def _check_attempt(found: PartManifest | ContentsManifest, root: RootManifest, where: str) -> None:
    if (found.attempt, found.step) != (root.attempt, root.step):
        raise DamagedCheckpointError(
            f"{where}: expected a part of attempt {root.attempt} of step {root.step}, "
            f"found one of attempt {found.attempt} of step {found.step}",
            hint="files of two checkpoints were mixed; resume from another checkpoint",
        )


def files_layout(
    root: RootManifest, parts: Sequence[PartManifest], only: Mapping[StateKey, Shape] | None = None
) -> Layout:
    """What the data files of some parts hold, as a layout: each file is a holder.

    Args:
        root: of the attempt.
        parts: which.
        only: tensors to look at, with the shapes that they must have; None: all.

    Raises:
        CheckpointError: a part has a tensor in another shape than another part, or than expected.
        PlanError: a range is not inside its tensor.
    """
    version = root.version
    shapes: dict[StateKey, Shape] = {} if only is None else dict(only)
    placed: dict[StateKey, dict[str, tuple[Region, ...]]] = {key: {} for key in shapes}
    for part in parts:
        holders = [file_holder(file.path) for file in part.files]
        for tensor in part.tensors:
            key = tensor.key(version)
            if key not in shapes:
                if only is not None:
                    continue
                shapes[key], placed[key] = tensor.shape, {}
            if shapes[key] != tensor.shape:
                raise DamagedCheckpointError(
                    f"part of writer {part.writer}: expected shape {list(shapes[key])} for {key}, "
                    f"found {list(tensor.shape)}"
                )
            held = placed[key]
            for chunk in tensor.chunks:
                holder = holders[chunk.file]
                held[holder] = (*held.get(holder, ()), chunk.region)
    # Most tensors lie as others do: those share a placement.
    alike: dict[tuple[Shape, tuple[object, ...]], Placement] = {}
    placements: dict[StateKey, Placement] = {}
    for key, shape in shapes.items():
        what = shape, tuple(placed[key].items())
        if what not in alike:
            alike[what] = Placement(shape, placed[key])
        placements[key] = alike[what]
    return Layout.placed(placements)


def read_artifacts(storage: Storage, root: RootManifest, *, rereads: Rereads | None = None) -> dict[str, bytes]:
    """The files kept beside the tensors, by name; ``rereads`` as in ``read_root``.

    Raises:
        CheckpointError: one is not what was saved.
    """
    return {artifact_name(file.path): read_artifact(storage, file, rereads=rereads) for file in root.artifacts}


def read_artifact(storage: Storage, file: StoredFile, *, rereads: Rereads | None = None) -> bytes:
    """One of them.

    Raises:
        CheckpointError: it is not what was saved.
    """
    data = _read(storage, file.path, file.sha256, rereads)
    if sha256(data) != file.sha256:
        raise DamagedCheckpointError(
            f"{storage.uri}/{file.path} is corrupt: expected sha256 {file.sha256}, found {sha256(data)}",
            hint="use an older checkpoint, or restore the file from a copy",
        )
    return data
