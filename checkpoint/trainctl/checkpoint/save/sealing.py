"""Saving, the part of the coordinator: when all parts are durable, one manifest makes the attempt a checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from trainctl.checkpoint.layout.region import volume, whole
from trainctl.checkpoint.manifest.codec import dump_contents, dump_root, sha256
from trainctl.checkpoint.manifest.contents import contents_of
from trainctl.checkpoint.manifest.names import CONTENTS, HF_INDEX, ROOT_MANIFEST, artifact_path
from trainctl.checkpoint.manifest.reading import read_root, unlike_files
from trainctl.checkpoint.manifest.records import (
    TCF_KEYS,
    TCF_VERSION,
    ParentRecord,
    PartReport,
    RootManifest,
    StoredFile,
)
from trainctl.checkpoint.manifest.values import needs_marks_of_keys
from trainctl.checkpoint.save.attempts import Attempt
from trainctl.checkpoint.save.beside import encode_beside
from trainctl.checkpoint.save.description import Described, schema_digest
from trainctl.checkpoint.save.model_files import CHUNKED, HF, ModelFiles
from trainctl.checkpoint.storage.errors import storage_errors
from trainctl.checkpoint.storage.opening import open_storage
from trainctl.checkpoint.storage.port import Storage
from trainctl.core.errors import CheckpointError, FencedError
from trainctl.core.records.generation import CheckpointRef
from trainctl.core.system.faults import FaultPlan


def seal(
    storage: Storage,
    attempt: Attempt,
    *,
    state: Described,
    parts: Sequence[PartReport],
    parent: CheckpointRef | None,
    faults: FaultPlan,
    model_files: ModelFiles | None = None,
    here: Sequence[PartReport] | None = None,
) -> CheckpointRef:
    """Writes the artifacts and, last, the root manifest: one atomic act that completes the attempt.

    Args:
        storage: opened at the root of all checkpoints.
        attempt: what to complete.
        state: for names, shapes, objects and artifacts; no tensor is read.
        parts: reports of all writers.
        parent: the checkpoint that this one continues, if there is one.
        faults: armed faults.
        model_files: of the attempt, in layout ``hf``.
        here: those whose files have to be in this storage; None: all.

    Raises:
        CheckpointError: parts are missing or of another attempt, their files are not here, objects or artifacts
            cannot be stored, or the storage refused.
        FencedError: somebody else has sealed this attempt.
    """
    data_bytes = sum(volume(whole(shape)) * key.item_bytes for key, shape in state.shapes().items())
    _check_parts(attempt, parts, data_bytes)
    objects = encode_beside(state.objects, state.artifacts)
    with storage_errors(f"sealing {attempt} in {storage.uri}"):
        root = _named(storage, attempt, state, parts, objects, data_bytes, model_files)
        _check_files(storage, attempt, root if here is None else dataclasses.replace(root, parts=tuple(here)))
        data = dump_root(_with_parent(root, parent))
        faults.reach("checkpoint.seal", step=attempt.step, rank=0)
        _complete(storage, attempt, data)
    faults.reach("checkpoint.sealed", step=attempt.step, rank=0)
    return CheckpointRef(
        uri=f"{storage.uri}/{attempt.folder}",
        step=attempt.step,
        lineage=attempt.lineage,
        attempt=attempt.attempt,
        manifest_sha256=sha256(data),
    )


def _named(
    storage: Storage,
    attempt: Attempt,
    state: Described,
    parts: Sequence[PartReport],
    objects: Mapping[str, Any],
    data_bytes: int,
    model_files: ModelFiles | None,
) -> RootManifest:
    """Writes the files that only the root manifest names, and makes it."""
    return RootManifest(
        tcf=TCF_KEYS if needs_marks_of_keys(objects) else TCF_VERSION,
        job=attempt.job,
        step=attempt.step,
        attempt=attempt.attempt,
        lineage=attempt.lineage,
        epoch=attempt.epoch,
        created=datetime.now(UTC).isoformat(timespec="microseconds"),
        parts=tuple(dataclasses.replace(part, held=None) for part in sorted(parts, key=lambda part: part.writer)),
        artifacts=_write_artifacts(storage, attempt, state.artifacts, beside_model=model_files is not None),
        tensors=len(state.shapes()),
        data_bytes=data_bytes,
        schema_sha256=schema_digest(state),
        aliases=state.aliases,
        objects=objects,
        layout=CHUNKED if model_files is None else HF,
        index=_write_index(storage, attempt, model_files),
        contents=_write_contents(storage, attempt, state, parts),
    )


def _complete(storage: Storage, attempt: Attempt, root: bytes) -> None:
    path = f"{attempt.folder}/{ROOT_MANIFEST}"
    try:
        storage.create_file(path, root)
    except FileExistsError as error:
        if storage.read(path) == root:  # it was this call that created it, and was asked twice since an answer was lost
            return
        raise FencedError(
            f"{attempt}: expected to seal it, found it sealed by another process",
            hint="a newer generation has saved this step: rank 0 of this one must not report the checkpoint",
        ) from error


def _check_parts(attempt: Attempt, parts: Sequence[PartReport], data_bytes: int) -> None:
    """The writers' runs are disjoint by construction, so equal sums mean that nothing is missing."""
    foreign = sorted(part.writer for part in parts if part.attempt != attempt.attempt)
    writers = [part.writer for part in parts]
    found = sum(part.data_bytes for part in parts)
    if foreign or len(set(writers)) != len(writers) or found != data_bytes:
        raise CheckpointError(
            f"{attempt}: expected parts of this attempt with {data_bytes} bytes in all, found {found} bytes of "
            f"writers {sorted(writers)}" + (f", those of writers {foreign} of another attempt" if foreign else ""),
            hint="discard the attempt; the next save starts a new one",
        )


def _check_files(storage: Storage, attempt: Attempt, root: RootManifest) -> None:
    """Who wrote to a folder of another node has reported its part, too."""
    if problems := unlike_files(storage, root, attempt.folder).values():
        raise CheckpointError(
            "\n".join([f"{attempt}: expected the files of all writers in {storage.uri}, but", *problems]),
            hint="all ranks have to save to one folder, which all of them see, not to each node's own disk",
        )


def _write_index(storage: Storage, attempt: Attempt, model_files: ModelFiles | None) -> StoredFile | None:
    if model_files is None or model_files.index is None:
        return None
    return _stored(storage, attempt, HF_INDEX, model_files.index)


def _write_contents(
    storage: Storage, attempt: Attempt, state: Described, parts: Sequence[PartReport]
) -> StoredFile | None:
    """The table of contents; none where a writer of an older version does not say what it holds."""
    held = {part.writer: part.held for part in parts if part.held is not None}
    if len(held) != len(parts):
        return None
    contents = contents_of(state.shapes(), held, tcf=TCF_VERSION, step=attempt.step, attempt=attempt.attempt)
    return _stored(storage, attempt, CONTENTS, dump_contents(contents))


def _stored(storage: Storage, attempt: Attempt, path: str, content: bytes) -> StoredFile:
    size = storage.write_file(f"{attempt.folder}/{path}", [content])
    return StoredFile(path=path, size_bytes=size, sha256=sha256(content))


def _write_artifacts(
    storage: Storage, attempt: Attempt, artifacts: Mapping[str, bytes], *, beside_model: bool
) -> tuple[StoredFile, ...]:
    stored: list[StoredFile] = []
    for name, content in sorted(artifacts.items()):
        stored.append(_stored(storage, attempt, artifact_path(name, beside_model=beside_model), content))
    return tuple(stored)


def _with_parent(root: RootManifest, parent: CheckpointRef | None) -> RootManifest:
    """Names the parent, and inherits the jobs that its job went on from: so a reader knows which job is the newest."""
    if parent is None:
        return root
    try:
        found, _ = read_root(open_storage(parent.uri), expected_sha256=parent.manifest_sha256)
    except CheckpointError:
        # Somebody removed the parent: no reason to lose this checkpoint, too.
        return dataclasses.replace(root, parent=ParentRecord(job="", step=parent.step, attempt=parent.attempt))
    ancestors = found.ancestors if found.job == root.job else (*found.ancestors, found.job)
    record = ParentRecord(job=found.job, step=found.step, attempt=found.attempt)
    return dataclasses.replace(root, parent=record, ancestors=ancestors)
