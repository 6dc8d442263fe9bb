"""A Hugging Face folder: ``model.safetensors``, or shards with their index, and the files around them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from trainctl.checkpoint.importing.source import Piece, SourceTensor, check_dtype, check_file
from trainctl.checkpoint.layout.key import DTYPE_BYTES
from trainctl.checkpoint.layout.region import Box
from trainctl.checkpoint.manifest.names import HF_INDEX
from trainctl.checkpoint.storage.port import RangeRead, Storage
from trainctl.core.errors import CheckpointError

WHOLE, INDEX = "model.safetensors", HF_INDEX
_MAX_HEADER_BYTES = 100 << 20
_MAX_ARTIFACT_BYTES = 64 << 20
_KEPT = (".json", ".txt", ".model", ".jinja")
_DCP_SHARDS = "DCP_SHARDING_INFO"


class HfFolder:
    """Implements ``SourceFolder``.

    Raises:
        CheckpointError: an index, a header or a file is not what it should be; names it.
    """

    format = "Hugging Face safetensors"
    others = ()

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        names = self._files()
        self.tensors = tuple(tensor for path in sorted(set(names.values())) for tensor in self._tensors(path, names))
        found = {tensor.name for tensor in self.tensors}
        if missing := sorted(set(names) - found - {""}):
            raise CheckpointError(
                f"{storage.uri}/{INDEX} names {missing[0]} in {names[missing[0]]}, which does not hold it "
                f"({len(missing)} missing)",
                hint="copy the folder again: index and shards are not of one model",
            )

    def artifacts(self) -> Mapping[str, bytes]:
        """Configuration and tokenizer."""
        kept = {}
        for name in self.storage.list(""):
            size = self.storage.size(name)
            if not name.endswith(_KEPT) or name == INDEX or size is None or size > _MAX_ARTIFACT_BYTES:
                continue
            check_file(self.storage, name, 0, where=self.storage.uri)
            kept[name] = self.storage.read(name)
        return kept

    def locate(self, tensor: SourceTensor, piece: Piece) -> int:
        """Safetensors files have no frame around a tensor."""
        return piece.begin

    def _files(self) -> Mapping[str, str]:
        """Name of tensor -> its file; the name is empty where there is but one file, which then says what it holds."""
        if self.storage.size(WHOLE) is not None:
            check_file(self.storage, WHOLE, 8, where=self.storage.uri)
            return {"": WHOLE}
        where = f"{self.storage.uri}/{INDEX}"
        check_file(self.storage, INDEX, 0, where=self.storage.uri)
        names = _json(self.storage.read(INDEX), where).get("weight_map")
        if not isinstance(names, dict) or not all(isinstance(path, str) for path in names.values()) or not names:
            raise CheckpointError(f"{where}: expected a weight_map of file names, found none", hint="copy it again")
        for path in sorted(set(names.values())):
            check_file(self.storage, path, 8, where=where)
        return names

    def _tensors(self, path: str, names: Mapping[str, str]) -> Iterator[SourceTensor]:
        where = f"{self.storage.uri}/{path}"
        header, begin = self._header(path, where)
        size = self.storage.size(path) or 0
        metadata = header.pop("__metadata__", {})
        if isinstance(metadata, dict) and _DCP_SHARDS in metadata:
            raise CheckpointError(
                f"{where} holds parts of tensors ({_DCP_SHARDS}), not whole ones",
                hint="consolidate it first: torch.distributed.checkpoint's consolidate_safetensors_files",
            )
        for name, entry in sorted(header.items()):
            if "" not in names and names.get(name) != path:
                continue  # shards may hold more than the index says, as in transformers
            yield _tensor(name, entry, path, where=where, bodies=begin, end=size)

    def _header(self, path: str, where: str) -> tuple[dict[str, Any], int]:
        length = memoryview(bytearray(8))
        self.storage.read_ranges(path, [RangeRead(0, length)])
        size = int.from_bytes(length, "little")
        if size > _MAX_HEADER_BYTES:
            raise CheckpointError(
                f"{where}: expected a safetensors header, found one of {size} bytes", hint="copy it again"
            )
        text = memoryview(bytearray(size))
        self.storage.read_ranges(path, [RangeRead(8, text)])
        return _json(bytes(text), where), 8 + size


def _json(data: bytes, where: str) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{where}: expected a JSON object, found: {error}", hint="copy it again") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{where}: expected a JSON object, found {type(found).__name__}", hint="copy it again")
    return found


def _tensor(name: str, entry: Any, path: str, *, where: str, bodies: int, end: int) -> SourceTensor:
    place = f"{where}, tensor {name[:200]}"
    try:
        dtype, shape, (first, last) = str(entry["dtype"]), tuple(entry["shape"]), entry["data_offsets"]
        sound = all(isinstance(n, int) and n >= 0 for n in (*shape, first, last))
    except (TypeError, KeyError, ValueError):
        sound = False
    if not sound:
        raise CheckpointError(f"{place}: expected dtype, shape and data_offsets, found {str(entry)[:100]}")
    check_dtype(dtype, where=place)
    size = math.prod(shape) * DTYPE_BYTES[dtype]
    if last - first != size:
        raise CheckpointError(f"{place}: expected {size} bytes of {dtype} {list(shape)}, found {last - first}")
    if bodies + last > end:
        raise CheckpointError(
            f"{where} is truncated: expected {bodies + last} bytes for {name[:200]}, found {end}", hint="copy it again"
        )
    piece = Piece(Box((0,) * len(shape), shape), path, bodies + first, size)
    return SourceTensor((name,), dtype, shape, (piece,))
