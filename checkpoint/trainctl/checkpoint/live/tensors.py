"""Torch tensors as the algebra sees them: dtype names, and parts of a region as views of the live memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch

from trainctl.checkpoint.layout.region import Flat, Region, Shape, flat_to_boxes, offset_in, volume
from trainctl.core.errors import PlanError

_DTYPE_NAMES: Mapping[torch.dtype, str] = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int16: "I16",
    torch.uint16: "U16",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int32: "I32",
    torch.uint32: "U32",
    torch.float32: "F32",
    torch.int64: "I64",
    torch.uint64: "U64",
    torch.float64: "F64",
    torch.complex64: "C64",
}
_DTYPES: Mapping[str, torch.dtype] = {name: dtype for dtype, name in _DTYPE_NAMES.items()}


def dtype_name(dtype: torch.dtype) -> str:
    """The safetensors name of a dtype.

    Raises:
        PlanError: the format has none for it.
    """
    try:
        return _DTYPE_NAMES[dtype]
    except KeyError:
        raise PlanError(
            f"expected a dtype of {', '.join(_DTYPES)}, found {dtype}",
            hint="keep this tensor in one of these dtypes, or register it as a view of one",
        ) from None


def dtype_of(name: str) -> torch.dtype:
    """The dtype with this safetensors name."""
    return _DTYPES[name]


def part_view(tensor: torch.Tensor, shape: Shape, region: Region, part: Region) -> torch.Tensor:
    """The elements of a part of the tensor that holds ``region`` of a global ``shape``: 1-d where they lie together.

    It shares memory with ``tensor`` where that is contiguous, else it is a copy.
    """
    memory = tensor.detach().reshape(-1)
    if not volume(part):
        return memory[:0]
    found = region_view(memory, shape, region, part)
    return found.view(-1) if found.is_contiguous() else found


def stretches(view: torch.Tensor, items: int) -> Iterator[tuple[int, torch.Tensor]]:
    """The elements of a view in row-major order, at most so many at a time, each with how many come before."""
    if view.dim() == 1:
        for begin in range(0, len(view), items):
            yield begin, view[begin : begin + items]
        return
    for begin in range(0, view.numel(), items):
        position = begin
        for box in flat_to_boxes(tuple(view.shape), Flat(begin, min(begin + items, view.numel()))):
            part = view
            for dim, (start, length) in enumerate(zip(box.offsets, box.lengths, strict=True)):
                part = part.narrow(dim, start, length)
            yield position, part
            position += part.numel()


def region_view(memory: torch.Tensor, shape: Shape, region: Region, piece: Region) -> torch.Tensor:
    """The elements of a part of a region, in the 1-d memory that holds the region; writing to it writes there.

    Args:
        memory: the elements of ``region``, row-major.
        shape: of the whole tensor.
        region: what the memory holds.
        piece: inside it; a box where the region is a box, or one of ``common``'s.
    """
    if isinstance(piece, Flat):
        return memory[offset_in(shape, region, piece.start) :][: piece.volume]
    if isinstance(region, Flat):
        sizes, start = shape, -region.start
        offsets = piece.offsets
    else:
        sizes, start = region.lengths, 0
        offsets = tuple(map(int.__sub__, piece.offsets, region.offsets))
    strides = tuple(math.prod(sizes[dim + 1 :]) for dim in range(len(sizes)))
    start += sum(map(int.__mul__, offsets, strides))
    return memory.as_strided(piece.lengths, strides, memory.storage_offset() + start)


def byte_view(flat: torch.Tensor) -> memoryview:
    """The bytes of a contiguous 1-d CPU tensor, not copied; writing to them writes the tensor."""
    view: memoryview = flat.detach().view(torch.uint8).numpy().data
    return view
