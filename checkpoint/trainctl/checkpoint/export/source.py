"""Parameters and buffers of a checkpoint as whole tensors, streamed band by band in row-major order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainctl.checkpoint.kept.catalog import inspect
from trainctl.checkpoint.layout.copy_plan import Transfer, copy_plan
from trainctl.checkpoint.layout.key import StateKey
from trainctl.checkpoint.layout.layout import Layout, rank_holder, replicated
from trainctl.checkpoint.layout.region import Flat, Shape, hull, intersect, offset_in, region_to_runs, volume, whole
from trainctl.checkpoint.load.blocks import BlockReader
from trainctl.checkpoint.load.readers import Readers
from trainctl.checkpoint.manifest.reading import files_layout, read_artifacts, read_parts
from trainctl.checkpoint.manifest.rereads import Rereads
from trainctl.checkpoint.storage.opening import open_storage
from trainctl.core.errors import CheckpointError
from trainctl.core.json_text import NoJsonError, parse_object

_MODEL = frozenset({"param", "buffer"})
"""Kinds that belong to the model; persistent buffers are part of what ``from_pretrained`` wants."""

CONFIG = "config.json"
BAND_BYTES = 16 << 20
"""Of a tensor in memory at a time."""
_HERE = rank_holder(0)


@dataclass(frozen=True, slots=True)
class Parameter:
    """A tensor to export: its name there, and the key that holds its values (another name's, where it is tied)."""

    name: str
    key: StateKey
    shape: Shape


class ExportSource:
    """A checkpoint opened for export.

    Attributes:
        ref: which one.
        rereads: what came with wrong bytes and was right when it was read again.

    Raises:
        CheckpointError: there is no usable checkpoint at ``uri``, or it holds no parameters.
    """

    def __init__(self, uri: str) -> None:
        info = inspect(uri)
        self.ref = info.ref
        self._root = info.manifest
        self._storage = open_storage(info.ref.uri)
        self.rereads = Rereads()
        parts = read_parts(self._storage, self._root, rereads=self.rereads)
        self._saved = files_layout(self._root, parts)
        self._reader = BlockReader(self._storage, self._root, parts, self.rereads)
        self._keys = {key.fqn: key for key in sorted(self._saved.shapes) if key.kind in _MODEL}
        if not self._keys:
            raise CheckpointError(
                f"{info.ref.uri} holds no parameters to export", hint="name a checkpoint of a training job"
            )

    def artifacts(self) -> Mapping[str, bytes]:
        """The files kept beside the tensors, by name.

        Raises:
            CheckpointError: one is not what was saved.
        """
        return read_artifacts(self._storage, self._root, rereads=self.rereads)

    def parameters(self) -> tuple[Parameter, ...]:
        """The model's, by name. Tied ones: as ``config.json`` says they are, once; else under every name.

        Raises:
            CheckpointError: ``config.json`` is not what was saved, or no JSON object.
        """
        config = self._config()
        names = dict(self._keys)
        if config is not None and not config.get("tie_word_embeddings", False):
            names |= {alias: self._keys[name] for alias, name in self._root.aliases.items() if name in self._keys}
        return tuple(Parameter(name, key, self._saved.shapes[key]) for name, key in sorted(names.items()))

    def _config(self) -> Mapping[str, Any] | None:
        """What the model's ``config.json`` says, if one was kept."""
        kept = self.artifacts().get(CONFIG)
        try:
            return parse_object(kept) if kept is not None else None
        except NoJsonError as error:
            raise CheckpointError(
                f"{self.ref.uri}, artifact {CONFIG}: {error}", hint=f"save it with the {CONFIG} of its model, or none"
            ) from error

    def stream(self, parameter: Parameter) -> Iterator[memoryview]:
        """The values in row-major order, verified.

        Raises:
            CheckpointError: the checkpoint lacks a part of it, or is corrupt.
        """
        key, shape = parameter.key, parameter.shape
        plan = copy_plan(self._saved, replicated({key: shape}, [_HERE]))
        if plan.missing:
            raise CheckpointError(f"{self.ref.uri}: {plan.missing[0]}", hint="export another checkpoint")
        sources = [(hull(shape, transfer.region), transfer) for transfer in plan.transfers]
        size, items = volume(whole(shape)), BAND_BYTES // key.item_bytes
        for start in range(0, size, items):
            band = Flat(start, min(start + items, size))
            yield self._band(parameter, band, [transfer for around, transfer in sources if intersect(around, band)])

    def _band(self, parameter: Parameter, band: Flat, sources: Sequence[Transfer]) -> memoryview:
        """Some of a tensor's elements. Blocks of what was saved as boxes have others', too; those are left."""
        key, shape = parameter.key, parameter.shape
        readers = Readers(Layout({key: shape}, {_HERE: {key: (band,)}}), 0, 1)
        found = np.empty((band.volume, key.item_bytes), np.uint8)
        for read, data in self._reader.read(self._reader.plan(sources, readers)):
            values = np.frombuffer(data, np.uint8).reshape(-1, key.item_bytes)
            for piece in readers.pieces(read, 0):
                for run in region_to_runs(shape, piece.region):
                    begin = piece.begin + offset_in(shape, piece.inside, run.start)
                    found[run.start - band.start : run.stop - band.start] = values[begin : begin + run.volume]
        return memoryview(found.reshape(-1).data)
