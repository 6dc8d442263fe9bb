"""A Hugging Face folder: ``model.safetensors``, or shards with their index, and the files around them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from trainctl.checkpoint.importing.safetensors_file import (
    METADATA_KEY,
    OFFSETS_KEY,
    begin_of,
    offsets_in,
    read_header,
    read_json,
    tensor_in,
)
from trainctl.checkpoint.importing.source import Piece, SourceTensor, check_file
from trainctl.checkpoint.manifest.names import HF_INDEX
from trainctl.checkpoint.storage.port import Storage
from trainctl.core.errors import CheckpointError
from trainctl.core.plain import is_dict

WHOLE, INDEX = "model.safetensors", HF_INDEX
_MAX_ARTIFACT_BYTES = 64 << 20
_KEPT = (".json", ".txt", ".model", ".jinja")


class HfFolder:
    """Implements ``SourceFolder``.

    Raises:
        CheckpointError: an index, a header or a file is not what it should be; names it.
    """

    format = "Hugging Face safetensors"
    others = ()
    notes = ()

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
        return artifacts_in(self.storage)

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
        names = read_json(self.storage.read(INDEX), where).get("weight_map")
        if not is_dict(names) or not all(isinstance(path, str) for path in names.values()) or not names:
            raise CheckpointError(f"{where}: expected a weight_map of file names, found none", hint="copy it again")
        for path in sorted(set(names.values())):
            check_file(self.storage, path, 8, where=where)
        return names

    def _tensors(self, path: str, names: Mapping[str, str]) -> Iterator[SourceTensor]:
        where = f"{self.storage.uri}/{path}"
        header, begin = read_header(self.storage, path, where)
        size = self.storage.size(path) or 0
        offsets = offsets_in(header, where)
        header.pop(METADATA_KEY, None)
        for name, entry in sorted(header.items()):
            if "" not in names and names.get(name) != path:
                continue  # shards may hold more than the index says, as in transformers
            tensor = tensor_in(name, entry, path, where=where, bodies=begin, end=size)
            if offsets is not None and any(begin_of(tensor, offsets, where)):
                raise CheckpointError(
                    f"{where} holds parts of tensors, not whole ones: {name[:200]} begins at "
                    f"{list(begin_of(tensor, offsets, where))} ({OFFSETS_KEY})",
                    hint="name the folder of the files shard-*.safetensors, or consolidate it with torch: "
                    "consolidate_safetensors_files",
                )
            yield tensor


def artifacts_in(storage: Storage) -> Mapping[str, bytes]:
    """Configuration and tokenizer: small files that are no weights."""
    kept: dict[str, bytes] = {}
    for name in storage.list(""):
        size = storage.size(name)
        if not name.endswith(_KEPT) or name == INDEX or size is None or size > _MAX_ARTIFACT_BYTES:
            continue
        check_file(storage, name, 0, where=storage.uri)
        kept[name] = storage.read(name)
    return kept
