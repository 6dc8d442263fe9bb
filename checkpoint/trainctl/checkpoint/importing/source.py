"""A folder of another program as named tensors, each in pieces that lie in files: what is imported from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from trainctl.checkpoint.layout.key import DTYPE_BYTES
from trainctl.checkpoint.layout.region import Box, Shape
from trainctl.checkpoint.storage.local import LocalStorage
from trainctl.checkpoint.storage.port import Storage
from trainctl.core.errors import CheckpointError


@dataclass(frozen=True, slots=True)
class Piece:
    """A box of a tensor: its file, and the bytes of the file that hold it, maybe with a frame around them."""

    region: Box
    path: str
    begin: int
    size: int


@dataclass(frozen=True, slots=True)
class SourceTensor:
    """A tensor of the folder.

    Attributes:
        path: its name, in the steps by which it was nested in the dict that was saved.
        dtype: name of the safetensors format.
        shape: global shape.
        pieces: what there is of it.
    """

    path: tuple[str, ...]
    dtype: str
    shape: Shape
    pieces: tuple[Piece, ...]

    @property
    def name(self) -> str:
        """Its name in the folder."""
        return ".".join(self.path)


class SourceFolder(Protocol):
    """A folder that was opened and looked at."""

    @property
    def format(self) -> str:
        """What kind of folder it is, for people."""
        ...

    @property
    def storage(self) -> Storage:
        """The folder."""
        ...

    @property
    def tensors(self) -> Sequence[SourceTensor]:
        """What it holds."""
        ...

    @property
    def others(self) -> Sequence[tuple[str, ...]]:
        """Names of what is no tensor, and is not read."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """What people should know of how it was read."""
        ...

    def artifacts(self) -> Mapping[str, bytes]:
        """Files to keep beside the tensors."""
        ...

    def locate(self, tensor: SourceTensor, piece: Piece) -> int:
        """Where in the piece's file its elements begin, row-major and without gaps.

        Raises:
            CheckpointError: what is there is not what it should be.
        """
        ...


def check_dtype(dtype: str, *, where: str) -> None:
    """Sees that a checkpoint of ours can hold it.

    Raises:
        CheckpointError: it cannot.
    """
    if dtype not in DTYPE_BYTES:
        raise CheckpointError(
            f"{where}: expected a dtype of {', '.join(DTYPE_BYTES)}, found {dtype[:40]}",
            hint="cast this tensor where it was saved, or leave it out with --exclude",
        )


def check_file(storage: Storage, path: str, end: int, *, where: str) -> None:
    """Sees that a file that ``where`` names lies in the folder and reaches to ``end``.

    Raises:
        CheckpointError: it is missing, too short, or somewhere else.
    """
    parts = path.replace("\\", "/").split("/")
    outside = path.startswith("/") or ".." in parts or "" in parts or "\0" in path
    if not outside and isinstance(storage, LocalStorage):
        folder = Path(storage.uri)
        outside = not (folder / path).resolve().is_relative_to(folder.resolve())
    if outside:
        raise CheckpointError(
            f"{where} names a file outside of the folder: {path[:200]!a}",
            hint="import a folder that holds its files itself: cp -rL copies what links lead to",
        )
    size = storage.size(path)
    if size is None:
        raise CheckpointError(f"{where} names {path[:200]}, which is not there", hint="copy the folder again")
    if size < end:
        raise CheckpointError(
            f"{storage.uri}/{path} is truncated: expected at least {end} bytes, found {size}",
            hint="copy the folder again",
        )
