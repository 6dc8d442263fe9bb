"""Where the elements of a tensor lie in what ``torch.save`` wrote: a zip file with a pickle and stored bytes."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping, Sequence
from typing import IO, Any

from trainctl.checkpoint.importing.pickles import Made, Stored, read_pickle
from trainctl.checkpoint.layout.key import DTYPE_BYTES
from trainctl.checkpoint.layout.region import Shape, volume, whole
from trainctl.checkpoint.storage.port import RangeRead, Storage
from trainctl.core.errors import CheckpointError

DTYPES: Mapping[str, str] = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
    "int16": "I16", "uint16": "U16", "float16": "F16", "bfloat16": "BF16", "int32": "I32", "uint32": "U32",
    "float32": "F32", "int64": "I64", "uint64": "U64", "float64": "F64", "complex64": "C64",
}  # fmt: skip
"""torch's name of a dtype -> the one of the safetensors format."""
_STORAGES: Mapping[str, str] = {
    "BoolStorage": "bool", "ByteStorage": "uint8", "CharStorage": "int8", "ShortStorage": "int16",
    "HalfStorage": "float16", "BFloat16Storage": "bfloat16", "IntStorage": "int32", "FloatStorage": "float32",
    "LongStorage": "int64", "DoubleStorage": "float64", "ComplexFloatStorage": "complex64",
}  # fmt: skip
_ALLOWED = frozenset(
    {("torch._utils", name) for name in ("_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_parameter")}
    | {("torch", name) for name in (*_STORAGES, *DTYPES)}
    | {("torch.storage", "UntypedStorage"), ("collections", "OrderedDict")}
)
_BUFFER_BYTES = 4096
_MAX_PICKLE_BYTES = 1 << 20
_LOCAL_HEADER_BYTES = 30


class _NoPlaceError(OSError):
    """Before the beginning of the file."""


_UNREADABLE = (
    *(zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError),
    *(ValueError, KeyError, IndexError, OverflowError, struct.error, _NoPlaceError),
)
"""What ``zipfile`` raises at bytes that are no zip file; found by damaging good ones."""
_ENCRYPTED = 1


def locate_tensor(storage: Storage, path: str, begin: int, size: int, *, dtype: str, shape: Shape, where: str) -> int:
    """The position in the file from which on the elements lie, row-major.

    Args:
        storage: of the folder.
        path: the file.
        begin: where in the file ``torch.save`` began.
        size: how many bytes it wrote.
        dtype: of the tensor that has to be there.
        shape: of that tensor.
        where: the tensor and its file, for errors.

    Raises:
        CheckpointError: it is something else, damaged, or names what a tensor does not need.
    """
    file = io.BufferedReader(_Range(storage, path, begin, size), _BUFFER_BYTES)
    try:
        with zipfile.ZipFile(file) as archive:
            entries = {info.filename.partition("/")[2]: info for info in archive.infolist()}
            pickled = _entry(entries, "data.pkl", where)
            if pickled.file_size > _MAX_PICKLE_BYTES:
                raise CheckpointError(f"{where}: expected one tensor, found a pickle of {pickled.file_size} bytes")
            order = b"little"
            if "byteorder" in entries:
                with archive.open(_entry(entries, "byteorder", where)) as entry:
                    order = entry.read(_BUFFER_BYTES)
            made = read_pickle(archive.read(pickled), _ALLOWED, where=where)
    except _UNREADABLE as error:
        raise CheckpointError(f"{where}: expected what torch.save writes, found: {error}") from error
    key, first = _checked(made, dtype, shape, where)
    if order != b"little":
        raise CheckpointError(f"{where}: expected little-endian bytes, found {order[:20]!r}")
    body = _entry(entries, f"data/{key}", where)
    wanted = volume(whole(shape)) * DTYPE_BYTES[dtype]
    start = body.header_offset + _local_header(file, body, where) + first
    if body.file_size < first + wanted or start + wanted > size:
        raise CheckpointError(f"{where} is truncated: expected {wanted} bytes, found {body.file_size - first}")
    return begin + start


def _entry(entries: Mapping[str, zipfile.ZipInfo], name: str, where: str) -> zipfile.ZipInfo:
    info = entries.get(name)
    if (
        info is None
        or info.flag_bits & _ENCRYPTED
        or info.compress_type != zipfile.ZIP_STORED
        or info.compress_size != info.file_size
    ):
        found = "none" if info is None else "another"
        raise CheckpointError(f"{where}: expected {name}, as it is, in what torch.save wrote, found {found}")
    return info


def _local_header(file: IO[bytes], info: zipfile.ZipInfo, where: str) -> int:
    """Its length: the one here may have more padding than the one in the table at the end."""
    header = b""
    if info.header_offset >= 0:  # else the table at the end lies
        file.seek(info.header_offset)
        header = file.read(_LOCAL_HEADER_BYTES)
    if len(header) != _LOCAL_HEADER_BYTES or header[:4] != b"PK\x03\x04":
        raise CheckpointError(f"{where}: expected an entry of a zip file, found none")
    return _LOCAL_HEADER_BYTES + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")


def _checked(made: Any, dtype: str, shape: Shape, where: str) -> tuple[str, int]:
    """Name of the storage that holds the tensor, and where in it the elements begin, in bytes."""
    if isinstance(made, Made) and made.what.name == "_rebuild_parameter":
        made = made.arguments[0] if made.arguments else None
    plain = _plain(made)
    if plain is None:
        raise CheckpointError(f"{where}: expected a plain tensor, found {_shown(made)}")
    name, key, first, found, steps = plain
    if DTYPES.get(name) != dtype or found != shape:
        raise CheckpointError(f"{where}: expected {dtype} {list(shape)}, found {DTYPES.get(name, name)} {list(found)}")
    if not _contiguous(found, steps):
        raise CheckpointError(
            f"{where}: expected elements in row-major order, found strides {list(steps)} of shape {list(found)}",
            hint="make the tensor contiguous and save it again, or leave it out with --exclude",
        )
    return key, first * DTYPE_BYTES[dtype]


def _plain(made: Any) -> tuple[str, str, int, tuple[Any, ...], tuple[Any, ...]] | None:
    """Name of the dtype, name of the storage, first element, shape and strides; None: it is no plain tensor."""
    try:
        stored, first, size, stride, *more = made.arguments
        _, kind, key, _, _ = stored.where
        name = _STORAGES.get(kind.name) or more[2].name
        found, steps = tuple(size), tuple(stride)
    except (TypeError, ValueError, AttributeError, IndexError):
        return None
    if not (isinstance(stored, Stored) and isinstance(key, str) and isinstance(first, int) and first >= 0):
        return None
    return name, key, first, found, steps


def _shown(made: Any) -> str:
    return made.what.name if isinstance(made, Made) else type(made).__name__


def _contiguous(shape: Sequence[int], stride: Sequence[int]) -> bool:
    if 0 in shape:
        return True
    if len(shape) != len(stride):
        return False
    expected = 1
    for size, step in zip(reversed(shape), reversed(stride), strict=True):
        if size != 1 and step != expected:
            return False
        expected *= size
    return True


class _Range(io.RawIOBase):
    """A part of a file, as a file."""

    def __init__(self, storage: Storage, path: str, begin: int, size: int) -> None:
        self._storage, self._path, self._begin, self._size = storage, path, begin, size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise _NoPlaceError("before the beginning")  # zipfile expects an OSError
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self._size - self._position))
        if count:
            self._storage.read_ranges(self._path, [RangeRead(self._begin + self._position, view[:count])])
        self._position += count
        return count
