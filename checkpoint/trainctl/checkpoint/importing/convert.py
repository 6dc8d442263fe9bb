"""Makes a checkpoint of a folder of another program, block by block, whatever its size."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from trainctl.checkpoint.importing.dcp import METADATA, DcpFolder
from trainctl.checkpoint.importing.hf import INDEX, WHOLE, HfFolder
from trainctl.checkpoint.importing.naming import Naming, Recognised, recognise
from trainctl.checkpoint.importing.shards import ShardsFolder, shard_files
from trainctl.checkpoint.importing.source import SourceFolder
from trainctl.checkpoint.importing.streaming import TensorStream, check_whole
from trainctl.checkpoint.kept.origin import Imported
from trainctl.checkpoint.kept.others import about_file
from trainctl.checkpoint.kept.retention import remove_attempt
from trainctl.checkpoint.layout.key import StateKey, StateVersion
from trainctl.checkpoint.layout.region import Flat, whole
from trainctl.checkpoint.manifest.checksum import PIECE_BYTES
from trainctl.checkpoint.manifest.names import ROOT_MANIFEST, attempt_id, step_of
from trainctl.checkpoint.save.attempts import Attempt
from trainctl.checkpoint.save.data_file import MAX_FILE_BYTES, Entry, cut
from trainctl.checkpoint.save.description import Description
from trainctl.checkpoint.save.part_writing import write_part
from trainctl.checkpoint.save.sealing import seal
from trainctl.checkpoint.storage.absence import is_file, why_nothing
from trainctl.checkpoint.storage.errors import storage_errors
from trainctl.checkpoint.storage.opening import open_storage
from trainctl.checkpoint.storage.port import Storage
from trainctl.core.errors import CheckpointError, ConflictError, UsageError
from trainctl.core.records.generation import CheckpointRef
from trainctl.core.system.faults import FaultPlan
from trainctl.core.units import format_bytes

JOB = "imported"
"""In the place of a job's uid."""
_INSTANCE = "island-0"
_LINEAGE, _EPOCH = 1, 1
_SAID_EVERY_BYTES = 1 << 30
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """What was made.

    Attributes:
        ref: the checkpoint.
        format: of the folder.
        tensors: number of tensors.
        data_bytes: their bytes.
        optimizer: whether the state of an optimizer is among them.
        notes: what was guessed or left out.
    """

    ref: CheckpointRef
    format: str
    tensors: int
    data_bytes: int
    optimizer: bool
    notes: tuple[str, ...]


def import_checkpoint(
    source_uri: str,
    target_uri: str,
    *,
    naming: Naming | None = None,
    step: int = 0,
    cursor: int = 0,
    max_file_bytes: int = MAX_FILE_BYTES,
    progress: Callable[[str], None] = lambda line: None,
) -> ImportReport:
    """Imports a folder of torch DCP, or of Hugging Face safetensors, as the only checkpoint of a new folder.

    Nothing of the source is executed: pickles are read as data, and only names that such a folder needs are accepted.

    Args:
        source_uri: folder to read.
        target_uri: folder to write; empty, or not there yet.
        naming: what a person says of the names.
        step: that the state is at; a job goes on from there.
        cursor: samples of the data that a job skips.
        max_file_bytes: size of one data file, at most.
        progress: called with a line now and then.

    Raises:
        CheckpointError: the folder is of another format, lacks a part, is damaged or refused; nothing is left behind.
        ConflictError: the target holds something.
        UsageError: a number is negative, or names cannot be understood without an option.
    """
    if min(step, cursor) < 0:
        raise UsageError(f"expected a step and a number of samples from 0 on, found {step} and {cursor}")
    with storage_errors(f"importing {source_uri}"):
        folder = open_folder(open_storage(source_uri))
        found = recognise(folder.tensors, folder.others, naming or Naming())
        for named in found.tensors:
            check_whole(named.tensor, where=folder.storage.uri)
        artifacts = folder.artifacts()
    notes = (*folder.notes, *found.notes)
    for note in notes:
        progress(note)
    with storage_errors(f"importing {source_uri} to {target_uri}"):
        target = _empty(target_uri)
        attempt = Attempt(
            job=JOB, step=step, lineage=_LINEAGE, epoch=_EPOCH, attempt=attempt_id(JOB, step, uuid.uuid4().hex)
        )
        try:
            ref, size = _write(folder, found, artifacts, target, attempt, cursor, max_file_bytes, progress)
        except BaseException:
            remove_attempt(target, attempt.folder)
            raise
    return ImportReport(
        ref=ref,
        format=folder.format,
        tensors=len(found.tensors),
        data_bytes=size,
        optimizer=found.optimizer,
        notes=notes,
    )


def _empty(uri: str) -> Storage:
    target = open_storage(uri)
    if entries := target.list(""):
        raise ConflictError(
            f"{target.uri}: expected an empty folder, found {', '.join(entries[:5])}", hint="name another folder"
        )
    return target


def open_folder(storage: Storage) -> SourceFolder:
    """The folder as what it is.

    Raises:
        CheckpointError: it is nothing that can be imported, or not what it should be.
    """
    if storage.size(METADATA) is not None:
        return DcpFolder(storage)
    if storage.size(WHOLE) is not None or storage.size(INDEX) is not None:
        return HfFolder(storage)
    entries = storage.list("")
    if shard_files(entries):
        return ShardsFolder(storage)
    if "sharded" in entries and shard_files(storage.list("sharded")):
        raise CheckpointError(
            f"{storage.uri} holds a folder of torch DCP that was not consolidated: sharded",
            hint=f"name that one: {storage.uri}/sharded",
        )
    if any(entry == ROOT_MANIFEST or step_of(entry) is not None for entry in entries):
        raise CheckpointError(
            f"{storage.uri} is a checkpoint of trainctl already", hint="name it in spec.checkpoint.resumeFrom"
        )
    if pickles := [entry for entry in entries if entry in _PICKLES]:
        raise CheckpointError(
            f"{storage.uri} holds its weights in {pickles[0]}, a pickle, which may run any code and is never read",
            hint="make safetensors of it where you trust it: "
            "AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(NEW_DIR)",
        )
    found = f"found {', '.join(entries[:5])}" if entries else why_nothing(storage)
    raise CheckpointError(
        f"{storage.uri}: expected a folder of torch DCP ({METADATA}, or shard-*.safetensors) or of Hugging Face "
        f"({WHOLE} or {INDEX}), {found}",
        hint=about_file(storage.uri) if is_file(storage) else "name the folder that these files are in",
    )


def _write(
    folder: SourceFolder,
    found: Recognised,
    artifacts: Mapping[str, bytes],
    target: Storage,
    attempt: Attempt,
    cursor: int,
    max_file_bytes: int,
    progress: Callable[[str], None],
) -> tuple[CheckpointRef, int]:
    version = StateVersion(attempt.lineage, attempt.step)
    keys = {StateKey(n.fqn, n.kind, n.tensor.dtype, _INSTANCE, version): n.tensor for n in found.tensors}
    entries = [
        entry
        for key, tensor in keys.items()
        for entry in cut(Entry(key, tensor.shape, whole(tensor.shape)), max_file_bytes)
    ]
    total = sum(entry.size_bytes for entry in entries)
    said = _Said(total, progress)

    def blocks(entry: Entry) -> Iterator[memoryview]:
        assert isinstance(entry.region, Flat)  # a stretch of a whole tensor
        return TensorStream(folder, keys[entry.key]).blocks(entry.region)

    faults = FaultPlan()
    part = write_part(
        target,
        attempt,
        writer=0,
        entries=entries,
        shapes={key: tensor.shape for key, tensor in keys.items()},
        blocks=blocks,
        faults=faults,
        alive=said.block,
        confirm=lambda: None,
        max_file_bytes=max_file_bytes,
    )
    objects = Imported(cursor=cursor, optimizer=found.optimizer).objects()
    state = Description({key: tensor.shape for key, tensor in keys.items()}, objects, artifacts)
    return seal(target, attempt, state=state, parts=[part], parent=None, faults=faults), total


class _Said:
    """A line for every gibibyte."""

    def __init__(self, total: int, progress: Callable[[str], None]) -> None:
        self._total = total
        self._progress = progress
        self._done = 0

    def block(self) -> None:
        before, self._done = self._done, min(self._total, self._done + PIECE_BYTES)
        if self._done // _SAID_EVERY_BYTES > before // _SAID_EVERY_BYTES:
            self._progress(f"{format_bytes(self._done)} of {format_bytes(self._total)}")
