"""One safetensors file that somebody else wrote: its header, and the tensors that it says it holds; none is trusted."""

from __future__ import annotations

import math
from typing import Any

from trainctl.checkpoint.importing.source import Piece, SourceTensor, check_dtype
from trainctl.checkpoint.layout.key import DTYPE_BYTES
from trainctl.checkpoint.layout.region import Box, Shape
from trainctl.checkpoint.storage.port import RangeRead, Storage
from trainctl.core.errors import CheckpointError
from trainctl.core.json_text import NoJsonError, parse_object
from trainctl.core.plain import is_dict, is_list

_MAX_HEADER_BYTES = 100 << 20
METADATA_KEY = "__metadata__"
OFFSETS_KEY = "DCP_SHARDING_INFO"
"""In the metadata of a file that torch DCP wrote: where in the whole tensor each of its tensors begins, as JSON."""
_SAVED = "saved_offsets"


def read_header(storage: Storage, path: str, where: str) -> tuple[dict[str, Any], int]:
    """The header of a file, and where the bodies of its tensors begin.

    Raises:
        CheckpointError: it is no safetensors file.
    """
    length = memoryview(bytearray(8))
    storage.read_ranges(path, [RangeRead(0, length)])
    size = int.from_bytes(length, "little")
    if size > _MAX_HEADER_BYTES:
        raise CheckpointError(
            f"{where}: expected a safetensors header, found one of {size} bytes", hint="copy it again"
        )
    text = memoryview(bytearray(size))
    storage.read_ranges(path, [RangeRead(8, text)])
    return read_json(bytes(text), where), 8 + size


def read_json(data: bytes | str, where: str) -> dict[str, Any]:
    """A JSON object.

    Raises:
        CheckpointError: it is none.
    """
    try:
        return parse_object(data)
    except NoJsonError as error:
        raise CheckpointError(f"{where}: {error}", hint="copy it again") from error


def tensor_in(name: str, entry: Any, path: str, *, where: str, bodies: int, end: int) -> SourceTensor:
    """A tensor as its entry in the header describes it, whole.

    Raises:
        CheckpointError: the entry is not what it should be, or the file ends before it.
    """
    place = f"{where}, tensor {name[:200]}"
    said = _said(entry)
    if said is None:
        raise CheckpointError(f"{place}: expected dtype, shape and data_offsets, found {str(entry)[:100]}")
    dtype, shape, first, last = said
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


def _said(entry: Any) -> tuple[str, Shape, int, int] | None:
    """Dtype, shape, and where the body begins and ends; None where the entry is not what it should be."""
    try:
        dtype, shape, (first, last) = str(entry["dtype"]), tuple(entry["shape"]), entry["data_offsets"]
    except (TypeError, KeyError, ValueError):
        return None
    if not all(isinstance(n, int) and n >= 0 for n in (*shape, first, last)):
        return None
    return dtype, shape, first, last


def offsets_in(header: dict[str, Any], where: str) -> dict[str, Any] | None:
    """What torch DCP wrote down beside the tensors: ``saved_offsets`` by name; None: it is no file of DCP's.

    Raises:
        CheckpointError: it is not what it should be.
    """
    metadata = header.get(METADATA_KEY)
    if not is_dict(metadata) or OFFSETS_KEY not in metadata:
        return None
    return read_json(str(metadata[OFFSETS_KEY]), f"{where}, {OFFSETS_KEY}")


def begin_of(tensor: SourceTensor, offsets: dict[str, Any], where: str) -> tuple[int, ...]:
    """Where in the whole tensor one of a file begins, dim by dim.

    Raises:
        CheckpointError: nobody wrote that down, or not as it should be.
    """
    entry = offsets.get(tensor.name)
    begin = entry.get(_SAVED) if is_dict(entry) else None
    if not is_list(begin) or len(begin) != len(tensor.shape) or not all(isinstance(n, int) and n >= 0 for n in begin):
        raise CheckpointError(
            f"{where}, tensor {tensor.name[:200]}: expected {_SAVED} of {len(tensor.shape)} dims in {OFFSETS_KEY}, "
            f"found {str(entry)[:100]}",
            hint="copy the folder again, or consolidate it with torch: consolidate_safetensors_files",
        )
    return tuple(begin)
