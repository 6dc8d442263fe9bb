"""Writes a Hugging Face folder: safetensors in shards, their index, and the artifacts saved with the checkpoint.

Streams block by block, so memory stays bounded by one batch of blocks however large the model is.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from trainctl.checkpoint.export.casting import cast_bytes, target_dtype
from trainctl.checkpoint.export.source import CONFIG, ExportSource, Parameter
from trainctl.checkpoint.layout.key import DTYPE_BYTES
from trainctl.checkpoint.layout.region import Shape, volume, whole
from trainctl.checkpoint.load.load_watch import Progress, unwatched
from trainctl.checkpoint.manifest.names import HF_INDEX, is_model_file
from trainctl.checkpoint.save.hf_files import index_of, into_shards, shard_header
from trainctl.checkpoint.storage.absence import is_folder
from trainctl.checkpoint.storage.errors import storage_errors
from trainctl.checkpoint.storage.opening import open_storage
from trainctl.checkpoint.storage.port import Storage
from trainctl.core.errors import ConflictError
from trainctl.core.json_text import parse_object
from trainctl.core.units import format_bytes

DEFAULT_SHARD_BYTES = 5 << 30
DTYPES: Mapping[str, str] = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
"""What a person may cast to -> its name in the files."""


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was written: files relative to the folder, parameters, and bytes of tensors.

    ``healed_reads``: what was read with wrong bytes and, read again, was right.
    """

    uri: str
    files: tuple[str, ...]
    tensors: int
    data_bytes: int
    healed_reads: int = 0


@dataclass(frozen=True, slots=True)
class _Output:
    """One tensor of the folder."""

    parameter: Parameter
    dtype: str

    @property
    def name(self) -> str:
        return self.parameter.name

    @property
    def shape(self) -> Shape:
        return self.parameter.shape

    @property
    def size_bytes(self) -> int:
        return volume(whole(self.parameter.shape)) * DTYPE_BYTES[self.dtype]


def export_checkpoint(
    source_uri: str,
    target_uri: str,
    *,
    dtype: str | None = None,
    max_shard_bytes: int = DEFAULT_SHARD_BYTES,
    overwrite: bool = False,
    progress: Callable[[str], None] = lambda line: None,
    moving: Progress = unwatched,
) -> ExportReport:
    """Exports the parameters of a checkpoint so that ``from_pretrained`` loads them.

    Args:
        source_uri: an attempt, a step's folder or a folder of checkpoints (then its newest).
        target_uri: folder to write; made if it does not exist.
        dtype: ``bfloat16``, ``float16`` or ``float32`` casts floating-point tensors; None keeps them as saved.
        max_shard_bytes: tensor bytes in one file; a larger tensor has a file of its own.
        overwrite: write into a folder that is not empty; model files in it are replaced.
        progress: called with one line for every file written.
        moving: told how many tensor bytes are written, of how many, every few megabytes.

    Raises:
        CheckpointError: the checkpoint is unusable, or the target refused; nothing half-written is left.
        ConflictError: the folder is not empty.
        UsageError: the cast is not possible.
    """
    source = ExportSource(source_uri)
    outputs = [_Output(p, target_dtype(p.key.dtype, DTYPES[dtype] if dtype else "")) for p in source.parameters()]
    shards = into_shards(outputs, max_shard_bytes)
    index = index_of(shards)
    target = open_storage(target_uri)
    moved = _Moved(sum(output.size_bytes for output in outputs), moving)
    with storage_errors(f"exporting to {target_uri}"):
        _clear(target, overwrite=overwrite)
        there = is_folder(target)
        written: list[str] = []
        try:
            for name, shard in shards.items():
                written.append(name)
                size = target.write_file(name, _shard_buffers(source, shard, moved))
                progress(f"{name}: {len(shard)} tensors, {format_bytes(size)}")
            for name, data in {**source.artifacts(), **({HF_INDEX: index} if index else {})}.items():
                written.append(name)
                target.write_file(name, [_with_dtype(data, dtype) if name == CONFIG else data])
        except BaseException:
            for name in written:
                with contextlib.suppress(OSError):
                    target.delete(name)
            if not there:
                target.delete_if_empty("")
            raise
    data_bytes = sum(output.size_bytes for output in outputs)
    return ExportReport(target.uri, tuple(written), len(outputs), data_bytes, source.rereads.healed)


def _clear(target: Storage, *, overwrite: bool) -> None:
    entries = target.list("")
    if entries and not overwrite:
        raise ConflictError(
            f"{target.uri}: expected an empty folder, found {', '.join(entries[:5])}",
            hint="name another folder, or replace the model in this one with --force",
        )
    for name in entries:
        if is_model_file(name):
            target.delete(name)


class _Moved:
    """Counts the tensor bytes of all files together."""

    def __init__(self, total_bytes: int, progress: Progress) -> None:
        self._total_bytes = total_bytes
        self._progress = progress
        self._done_bytes = 0

    def add(self, size_bytes: int) -> None:
        self._done_bytes += size_bytes
        self._progress(self._done_bytes, self._total_bytes)


def _shard_buffers(source: ExportSource, shard: Sequence[_Output], moved: _Moved) -> Iterator[memoryview | bytes]:
    yield shard_header(shard, {})
    for output in shard:
        for data in source.stream(output.parameter):
            cast = cast_bytes(data, output.parameter.key.dtype, output.dtype)
            yield cast
            moved.add(memoryview(cast).nbytes)


def _with_dtype(config: bytes, dtype: str | None) -> bytes:
    """Tells ``from_pretrained(dtype="auto")`` what it finds."""
    if dtype is None:
        return config
    fields = parse_object(config)  # as `parameters` has found already
    fields.pop("torch_dtype", None)
    return json.dumps({**fields, "dtype": dtype}, indent=2).encode()
