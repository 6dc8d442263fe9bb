"""Layout ``hf``: where every parameter lies in the files that transformers loads, known before a byte is written.

All ranks compute the same from the same shapes, so each writes its ranges where they stay, and nothing is consolidated
afterwards. What is no part of the model stays in data files of each writer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from trainctl.checkpoint.layout.key import StateKey
from trainctl.checkpoint.layout.region import Flat, Shape, volume, whole
from trainctl.checkpoint.save.attempts import Attempt
from trainctl.checkpoint.save.data_file import MAX_FILE_BYTES, Entry, file_metadata
from trainctl.checkpoint.save.hf_files import index_of, into_shards, shard_header
from trainctl.core.errors import PlanError

CHUNKED, HF = "chunked", "hf"
LAYOUTS = (CHUNKED, HF)
_MODEL = frozenset({"param", "buffer"})
_NAMED = 20
"""Tensors that an error names."""


@dataclass(frozen=True, slots=True)
class _Tensor:
    key: StateKey
    shape: Shape

    @property
    def name(self) -> str:
        return self.key.fqn

    @property
    def dtype(self) -> str:
        return self.key.dtype

    @property
    def size_bytes(self) -> int:
        return volume(whole(self.shape)) * self.key.item_bytes


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One of the files: its name in the attempt, its header, and its size with everything in it."""

    path: str
    header: bytes
    size_bytes: int


class ModelFiles:
    """The files of one attempt.

    Attributes:
        files: in the order of their names.
        index: content of ``manifest.names.HF_INDEX``; None where there is but one file.

    Args:
        attempt: whose they are.
        shapes: of the whole state, whatever part of it a rank holds.
        max_file_bytes: tensor bytes in one file; a larger tensor has a file of its own.

    Raises:
        PlanError: two tensors of the model have one name.
    """

    def __init__(
        self, attempt: Attempt, shapes: Mapping[StateKey, Shape], *, max_file_bytes: int = MAX_FILE_BYTES
    ) -> None:
        tensors = [_Tensor(key, shape) for key, shape in sorted(shapes.items()) if key.kind in _MODEL]
        if twice := [name for name, count in Counter(tensor.name for tensor in tensors).items() if count > 1]:
            more = f" and {len(twice) - _NAMED} more" if len(twice) > _NAMED else ""
            found = ", ".join(twice[:_NAMED]) + more
            raise PlanError(
                f"expected a different name for every tensor of the model, found more than once: {found}",
                hint="save it with layout: chunked",
            )
        shards = into_shards(tensors, max_file_bytes) if tensors else {}
        self.index = index_of(shards) if shards else None
        self._places: dict[StateKey, tuple[int, int]] = {}
        files: list[ModelFile] = []
        for number, (path, shard) in enumerate(shards.items()):
            header = shard_header(shard, file_metadata(attempt.step, attempt.attempt))
            position = len(header)
            for tensor in shard:
                self._places[tensor.key] = (number, position)
                position += tensor.size_bytes
            files.append(ModelFile(path, header, position))
        self.files = tuple(files)

    def holds(self, entry: Entry) -> bool:
        """Whether an entry is of the model."""
        return entry.key.kind in _MODEL

    def place(self, entry: Entry) -> tuple[int, int]:
        """Which of the files an entry belongs into, and where it begins there.

        Raises:
            PlanError: it is a box, whose bytes do not lie together in the whole tensor.
        """
        if not isinstance(entry.region, Flat):
            raise PlanError(f"expected a flat range of {entry.key} for a file of the model, found {entry.region}")
        number, begin = self._places[entry.key]
        return number, begin + entry.region.start * entry.key.item_bytes
