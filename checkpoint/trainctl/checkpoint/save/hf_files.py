"""The files of a Hugging Face folder: which tensor is in which, in what order, and their index. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

from trainctl.checkpoint.layout.key import DTYPE_BYTES
from trainctl.checkpoint.layout.region import Shape
from trainctl.checkpoint.save.data_file import file_header


class HfTensor(Protocol):
    """A whole tensor of the folder."""

    @property
    def name(self) -> str:
        """Its name there."""
        ...

    @property
    def dtype(self) -> str:
        """Of the safetensors format."""
        ...

    @property
    def shape(self) -> Shape:
        """Its shape."""
        ...

    @property
    def size_bytes(self) -> int:
        """Its size."""
        ...


T = TypeVar("T", bound=HfTensor)


def into_shards(tensors: Sequence[T], max_bytes: int) -> dict[str, list[T]]:
    """Files by name with at most so many bytes of tensors, in the order of their bodies; a larger one is alone.

    Wide dtypes come first in a file, which keeps every tensor at a multiple of its item size.
    """
    shards: list[list[T]] = [[]]
    room = max_bytes
    for tensor in tensors:
        if shards[-1] and tensor.size_bytes > room:
            shards.append([])
            room = max_bytes
        shards[-1].append(tensor)
        room -= tensor.size_bytes
    for shard in shards:
        shard.sort(key=lambda t: (-DTYPE_BYTES[t.dtype], t.name))
    if len(shards) == 1:
        return {"model.safetensors": shards[0]}
    return {f"model-{i:05d}-of-{len(shards):05d}.safetensors": shard for i, shard in enumerate(shards, start=1)}


def shard_header(shard: Sequence[HfTensor], metadata: Mapping[str, str]) -> bytes:
    """The header of one of them; transformers wants to know who wrote the tensors."""
    return file_header([(t.name, t.dtype, t.shape, t.size_bytes) for t in shard], {**metadata, "format": "pt"})


def index_of(shards: Mapping[str, Sequence[HfTensor]]) -> bytes | None:
    """The content of ``manifest.names.HF_INDEX``; None where one file holds everything."""
    if len(shards) == 1:
        return None
    weight_map = {tensor.name: file for file, shard in shards.items() for tensor in shard}
    total = sum(tensor.size_bytes for shard in shards.values() for tensor in shard)
    content = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    return json.dumps(content, indent=2).encode()
