"""A folder of torch DCP's own safetensors writer that was not consolidated: files with each rank's part of the tensors.

``HuggingFaceStorageWriter(save_distributed=True)`` writes no metadata file. Each file says where in the whole tensors
its parts begin. How large these are nobody says: they reach as far as the parts do, as for torch's own reader.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from trainctl.checkpoint.importing.hf import artifacts_in
from trainctl.checkpoint.importing.safetensors_file import (
    METADATA_KEY,
    OFFSETS_KEY,
    begin_of,
    offsets_in,
    read_header,
    tensor_in,
)
from trainctl.checkpoint.importing.source import Piece, SourceTensor, check_file
from trainctl.checkpoint.layout.region import Box
from trainctl.checkpoint.storage.port import Storage
from trainctl.core.errors import CheckpointError
from trainctl.core.units import format_count

_FILE = re.compile(r"shard-(\d+)-model-\d+-of-\d+\.safetensors")


def shard_files(entries: Sequence[str]) -> list[str]:
    """Those that such a writer names so."""
    return sorted(entry for entry in entries if _FILE.fullmatch(entry))


class ShardsFolder:
    """Implements ``SourceFolder``.

    Raises:
        CheckpointError: a header or a file is not what it should be, or two do not fit each other; names them.
    """

    format = "torch DCP, safetensors"
    others = ()

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        files = shard_files(storage.list(""))
        parts: dict[str, list[SourceTensor]] = {}
        for file in files:
            for part in self._parts(file):
                parts.setdefault(part.name, []).append(part)
        self.tensors = tuple(self._whole(found) for _, found in sorted(parts.items()))
        ranks = {match[1] for file in files if (match := _FILE.fullmatch(file)) is not None}
        self.notes = (
            f"the folder has files of {format_count(len(ranks), 'rank')} and does not say how many there were: shapes "
            "reach as far as these files do",
        )

    def artifacts(self) -> Mapping[str, bytes]:
        """Configuration and tokenizer, if somebody put them there."""
        return artifacts_in(self.storage)

    def locate(self, tensor: SourceTensor, piece: Piece) -> int:
        """Safetensors files have no frame around a tensor."""
        return piece.begin

    def _parts(self, path: str) -> Iterator[SourceTensor]:
        """The tensors of a file, each as one piece at its place in the whole one."""
        where = f"{self.storage.uri}/{path}"
        check_file(self.storage, path, 8, where=self.storage.uri)
        header, bodies = read_header(self.storage, path, where)
        offsets = offsets_in(header, where)
        if offsets is None:
            raise CheckpointError(
                f"{where}: expected where its parts of tensors begin ({OFFSETS_KEY}), found nothing of that",
                hint="tried with folders of torch 2.13; copy the folder again",
            )
        header.pop(METADATA_KEY, None)
        end = self.storage.size(path) or 0
        for name, entry in sorted(header.items()):
            part = tensor_in(name, entry, path, where=where, bodies=bodies, end=end)
            (piece,) = part.pieces
            region = Box(begin_of(part, offsets, where), part.shape)
            yield replace(part, pieces=(replace(piece, region=region),))

    def _whole(self, parts: Sequence[SourceTensor]) -> SourceTensor:
        first = parts[0]
        for other in parts[1:]:
            if (other.dtype, len(other.shape)) != (first.dtype, len(first.shape)):
                raise CheckpointError(
                    f"{self.storage.uri}, tensor {first.name[:200]}: expected parts of one tensor, found "
                    f"{first.dtype} of {len(first.shape)} dims in {first.pieces[0].path} and "
                    f"{other.dtype} of {len(other.shape)} dims in {other.pieces[0].path}",
                    hint="files of two checkpoints were mixed: copy the folder again",
                )
        pieces = tuple(piece for part in parts for piece in part.pieces)
        ends = [[o + n for o, n in zip(p.region.offsets, p.region.lengths, strict=True)] for p in pieces]
        return replace(first, shape=tuple(max(dim) for dim in zip(*ends, strict=True)), pieces=pieces)
