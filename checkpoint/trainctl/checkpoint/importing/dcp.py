"""A folder of ``torch.distributed.checkpoint``: a pickle says what lies where in files that ``torch.save`` wrote."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trainctl.checkpoint.importing.pickles import Made, Name, read_pickle
from trainctl.checkpoint.importing.source import Piece, SourceTensor, check_dtype, check_file
from trainctl.checkpoint.importing.torch_file import DTYPES, locate_tensor
from trainctl.checkpoint.layout.region import Box, Shape, check_region
from trainctl.checkpoint.storage.port import Storage
from trainctl.core.errors import CheckpointError, PlanError
from trainctl.core.plain import is_dict, is_tuple

METADATA = ".metadata"
_MAX_METADATA_BYTES = 1 << 30
_PACKAGE = "torch.distributed.checkpoint"
_OLD = "torch.distributed._shard.sharded_tensor.metadata"
_CLASSES = (
    *("Metadata", "MetadataIndex", "StorageMeta", "TensorStorageMetadata", "BytesStorageMetadata"),
    *("ChunkStorageMetadata", "TensorProperties", "_MEM_FORMAT_ENCODING"),
)
_UNKNOWN_DTYPES = (
    *("complex32", "complex128", "qint8", "quint8", "qint32", "float8_e8m0fnu", "float8_e4m3fnuz", "float8_e5m2fnuz"),
    "float4_e2m1fn_x2",
)
"""So that an error can name the tensor."""
_PATHS = ("PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath")
_ALLOWED = frozenset(
    (
        *((f"{_PACKAGE}.metadata", name) for name in _CLASSES),
        *((_OLD, name) for name in ("TensorProperties", "MEM_FORMAT_ENCODING")),
        *(("torch", name) for name in ("Size", *DTYPES, *_UNKNOWN_DTYPES)),
        *((module, name) for module in ("pathlib", "pathlib._local") for name in _PATHS),
        (f"{_PACKAGE}.filesystem", "_StorageInfo"),
        ("torch.serialization", "_get_layout"),
        ("collections", "OrderedDict"),
    )
)
"""What the metadata of such a folder needs, of torch 2.1 to 2.13."""


class DcpFolder:
    """Implements ``SourceFolder``.

    Raises:
        CheckpointError: the metadata names what it does not need, is torn, or does not fit the files; names the place.
    """

    format = "torch DCP"
    notes = ()

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        where = f"{storage.uri}/{METADATA}"
        size = storage.size(METADATA) or 0
        if size > _MAX_METADATA_BYTES:
            raise CheckpointError(f"{where}: expected at most {_MAX_METADATA_BYTES} bytes, found {size}")
        check_file(storage, METADATA, 0, where=storage.uri)
        found = read_pickle(storage.read(METADATA), _ALLOWED, where=where)
        try:
            self._take_apart(_fields(found, "Metadata"), where)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(
                f"{where}: expected the metadata of a torch DCP folder, found something else "
                f"({type(error).__name__}: {error})",
                hint="tried with torch 2.13; save it again with that version",
            ) from error

    def artifacts(self) -> Mapping[str, bytes]:
        """Such a folder has none."""
        return {}

    def locate(self, tensor: SourceTensor, piece: Piece) -> int:
        """Inside of what ``torch.save`` wrote."""
        where = f"{self.storage.uri}/{piece.path}, bytes {piece.begin}:{piece.begin + piece.size} ({tensor.name})"
        shape = piece.region.lengths
        return locate_tensor(
            self.storage, piece.path, piece.begin, piece.size, dtype=tensor.dtype, shape=shape, where=where
        )

    def _take_apart(self, metadata: Mapping[str, Any], where: str) -> None:
        stored = {
            (key["fqn"], _shape(key.get("offset"))): _fields(info, "_StorageInfo")
            for key, info in ((_fields(k, "MetadataIndex"), i) for k, i in metadata["storage_data"].items())
        }
        planned = metadata.get("planner_data")
        nested: Mapping[Any, Any] = planned if is_dict(planned) else {}
        tensors: list[SourceTensor] = []
        others: list[tuple[str, ...]] = []
        for name, entry in metadata["state_dict_metadata"].items():
            path = tuple(str(step) for step in nested.get(name, (name,)))
            if entry.what.name == "BytesStorageMetadata":
                others.append(path)
            else:
                tensors.append(_tensor(name, path, _fields(entry, "TensorStorageMetadata"), stored, where))
        self.tensors = tuple(tensors)
        self.others = tuple(others)
        ends: dict[str, int] = {}
        for piece in (piece for tensor in tensors for piece in tensor.pieces):
            ends[piece.path] = max(ends.get(piece.path, 0), piece.begin + piece.size)
        for file, end in sorted(ends.items()):
            check_file(self.storage, file, end, where=where)


def _tensor(
    name: str,
    path: tuple[str, ...],
    entry: Mapping[str, Any],
    stored: Mapping[tuple[str, Shape], Mapping[str, Any]],
    where: str,
) -> SourceTensor:
    place = f"{where}, tensor {name[:200]}"
    dtype = _fields(entry["properties"], "TensorProperties", positions=("dtype",))["dtype"]
    if not isinstance(dtype, Name):
        raise TypeError(f"a dtype is {type(dtype).__name__}")
    check_dtype(DTYPES.get(dtype.name, dtype.name), where=place)
    shape = _shape(entry["size"])
    return SourceTensor(path, DTYPES[dtype.name], shape, tuple(_pieces(name, shape, entry["chunks"], stored, place)))


def _pieces(
    name: str, shape: Shape, chunks: Any, stored: Mapping[tuple[str, Shape], Mapping[str, Any]], place: str
) -> Iterator[Piece]:
    for chunk in (_fields(chunk, "ChunkStorageMetadata") for chunk in chunks):
        region = Box(_shape(chunk["offsets"]), _shape(chunk["sizes"]))
        try:
            check_region(shape, region)
        except PlanError as error:
            raise CheckpointError(f"{place}: {error}") from error
        info = stored.get((name, region.offsets))
        if info is None:
            raise CheckpointError(f"{place}: the metadata does not say where {region} lies", hint="save it again")
        if info.get("transform_descriptors"):
            raise CheckpointError(
                f"{place}: expected plain bytes, found them transformed by {info['transform_descriptors']}",
                hint="load it with torch and save it without extensions",
            )
        begin, size = info["offset"], info["length"]
        if not (isinstance(begin, int) and isinstance(size, int) and min(begin, size) >= 0):
            raise TypeError("positions are no numbers")
        yield Piece(region, str(info["relative_path"]), begin, size)


def _fields(made: Any, name: str, *, positions: tuple[str, ...] = ()) -> Mapping[str, Any]:
    """The attributes of an object of this class; ``positions``: names of the first items of a state that is a tuple."""
    if not isinstance(made, Made) or made.what.name != name:
        raise TypeError(f"expected {name}, found {made.what.name if isinstance(made, Made) else type(made).__name__}")
    if positions and is_tuple(made.state):
        return dict(zip(positions, made.state, strict=False))
    if not is_dict(made.state):
        raise TypeError(f"{name} without attributes")
    return made.state


def _shape(size: Any) -> Shape:
    if size is None:
        return ()
    (numbers,) = size.arguments
    if size.what.name != "Size" or not all(isinstance(number, int) and number >= 0 for number in numbers):
        raise TypeError("expected a torch.Size of numbers")
    return tuple(numbers)
