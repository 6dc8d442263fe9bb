"""Reads the manifests of one attempt and sees that the files they list are there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trainctl.checkpoint.layout.key import StateKey
from trainctl.checkpoint.layout.layout import Layout, file_holder
from trainctl.checkpoint.layout.placement import Placement
from trainctl.checkpoint.layout.region import Region, Shape
from trainctl.checkpoint.manifest.codec import parse_contents, parse_part, parse_root, sha256
from trainctl.checkpoint.manifest.contents import ContentsTable
from trainctl.checkpoint.manifest.names import ROOT_MANIFEST, artifact_name
from trainctl.checkpoint.manifest.records import ContentsManifest, PartManifest, PartReport, RootManifest, StoredFile
from trainctl.checkpoint.storage.port import Storage
from trainctl.core.errors import CheckpointError, DamagedCheckpointError


def read_root(storage: Storage, folder: str = "", *, expected_sha256: str = "") -> tuple[RootManifest, str]:
    """The root manifest of the attempt in ``folder``, and its sha256.

    Raises:
        CheckpointError: there is none (so the attempt was never completed), it is unusable, or not the one expected.
    """
    path = f"{folder}/{ROOT_MANIFEST}".lstrip("/")
    where = f"{storage.uri}/{path}"
    try:
        data = _read(storage, path, expected_sha256)
    except (FileNotFoundError, NotADirectoryError):
        entries = storage.list(folder)
        found = f"found {', '.join(entries[:5])}" if entries else "the folder is empty or does not exist"
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


def _read(storage: Storage, path: str, expected_sha256: str) -> bytes:
    """A file, read twice if it is not the one expected: it may have been changed on its way."""
    data = storage.read(path)
    return storage.read(path) if expected_sha256 and sha256(data) != expected_sha256 else data


def check_files(storage: Storage, root: RootManifest, folder: str = "") -> None:
    """Sees that every file of the attempt is there with its size.

    Raises:
        CheckpointError: lists all that are not.
    """
    problems = []
    for file in root.stored_files:
        try:
            check_size(storage, file, folder)
        except CheckpointError as error:
            problems.append(str(error))
    if problems:
        raise DamagedCheckpointError(
            "\n".join([f"the checkpoint of step {root.step} is incomplete:", *problems]),
            hint="resume from an older checkpoint, or restore the files from a copy",
        )


def check_size(storage: Storage, file: StoredFile, folder: str = "") -> None:
    """Sees that one file of the attempt is there with its size.

    Raises:
        CheckpointError: it is not.
    """
    path = f"{folder}/{file.path}".lstrip("/")
    size = storage.size(path)
    if size is None:
        raise DamagedCheckpointError(f"{storage.uri}/{path} is missing")
    if size != file.size_bytes:
        raise DamagedCheckpointError(
            f"{storage.uri}/{path} is truncated: expected {file.size_bytes} bytes, found {size}"
        )


def read_parts(storage: Storage, root: RootManifest) -> tuple[PartManifest, ...]:
    """All part manifests of the attempt that ``storage`` is opened at.

    Raises:
        CheckpointError: one is missing, corrupt, or of another attempt.
    """
    return tuple(read_part(storage, root, report) for report in root.parts)


def read_contents(storage: Storage, root: RootManifest) -> ContentsTable | None:
    """Which part holds what; None: the checkpoint is of an older version, which has no such table.

    Raises:
        CheckpointError: it is missing, corrupt, or of another attempt.
    """
    if root.contents is None:
        return None
    where = f"{storage.uri}/{root.contents.path}"
    contents = parse_contents(_listed(storage, root.contents), root.contents, where=where)
    _check_attempt(contents, root, where)
    return ContentsTable(contents, root.version)


def read_part(storage: Storage, root: RootManifest, report: PartReport) -> PartManifest:
    """The part manifest of one writer.

    Raises:
        CheckpointError: as ``read_parts``.
    """
    where = f"{storage.uri}/{report.manifest.path}"
    part = parse_part(_listed(storage, report.manifest), report.manifest, where=where)
    _check_attempt(part, root, where)
    return part


def _listed(storage: Storage, file: StoredFile) -> bytes:
    """A file that the root manifest lists."""
    try:
        return _read(storage, file.path, file.sha256)
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
    placements = {}
    for key, shape in shapes.items():
        what = shape, tuple(placed[key].items())
        if what not in alike:
            alike[what] = Placement(shape, placed[key])
        placements[key] = alike[what]
    return Layout.placed(placements)


def read_artifacts(storage: Storage, root: RootManifest) -> dict[str, bytes]:
    """The files kept beside the tensors, by name.

    Raises:
        CheckpointError: one is not what was saved.
    """
    return {artifact_name(file.path): read_artifact(storage, file) for file in root.artifacts}


def read_artifact(storage: Storage, file: StoredFile) -> bytes:
    """One of them.

    Raises:
        CheckpointError: it is not what was saved.
    """
    data = _read(storage, file.path, file.sha256)
    if sha256(data) != file.sha256:
        raise DamagedCheckpointError(
            f"{storage.uri}/{file.path} is corrupt: expected sha256 {file.sha256}, found {sha256(data)}",
            hint="use an older checkpoint, or restore the file from a copy",
        )
    return data
