"""Tensors that lie in boxes over several files, as row-major blocks; never more than a block in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from trainctl.checkpoint.importing.source import SourceFolder, SourceTensor
from trainctl.checkpoint.layout.copy_plan import uncovered
from trainctl.checkpoint.layout.key import DTYPE_BYTES, StateKey, StateVersion
from trainctl.checkpoint.layout.layout import Layout, file_holder, replicated
from trainctl.checkpoint.layout.region import (
    Box,
    Flat,
    Region,
    Shape,
    flat_to_boxes,
    intersect,
    offset_in,
    region_to_runs,
    volume,
    whole,
)
from trainctl.checkpoint.manifest.checksum import PIECE_BYTES
from trainctl.checkpoint.storage.port import RangeRead
from trainctl.core.errors import CheckpointError


def check_whole(tensor: SourceTensor, *, where: str) -> None:
    """Sees that the pieces are the tensor: nothing twice, nothing missing.

    Raises:
        CheckpointError: names the tensor and the first range.
    """
    regions = [piece.region for piece in tensor.pieces if volume(piece.region)]
    if common := _first_overlap(regions):
        raise CheckpointError(f"{where}: expected {common} of {tensor.name} once, found it twice")
    if sum(map(volume, regions)) == volume(whole(tensor.shape)):
        return
    key = StateKey(tensor.name, "param", tensor.dtype, "", StateVersion(0, 0))
    shapes = {key: tensor.shape}
    there = Layout(shapes, {file_holder(str(index)): {key: (region,)} for index, region in enumerate(regions)})
    missing = uncovered(replicated(shapes, ["all"]), there)
    raise CheckpointError(
        f"{where}: nothing holds {missing[0].region} of {tensor.name} (shape {list(tensor.shape)})",
        hint="copy the folder again: a part of it is missing",
    )


def _first_overlap(regions: Sequence[Box]) -> Region | None:
    """What two of them share. They are swept along the dim with the most cuts, so that few meet each other."""
    dims = len(regions[0].offsets) if regions else 0
    dim = max(range(dims), key=lambda d: len({region.offsets[d] for region in regions}), default=0)
    open_: list[Box] = []
    for region in sorted(regions, key=lambda region: region.offsets[dim : dim + 1]):
        open_ = (
            [other for other in open_ if other.offsets[dim] + other.lengths[dim] > region.offsets[dim]]
            if dims
            else open_
        )
        for other in open_:
            if common := intersect(region, other):
                return common
        open_.append(region)
    return None


class TensorStream:
    """One tensor of a folder.

    Raises:
        CheckpointError: a piece is not what the folder says; names it.
    """

    def __init__(self, folder: SourceFolder, tensor: SourceTensor) -> None:
        self._folder = folder
        self._tensor = tensor
        self._item = DTYPE_BYTES[tensor.dtype]
        held = [piece for piece in tensor.pieces if volume(piece.region)]
        self._pieces = [(piece.region, piece.path, folder.locate(tensor, piece)) for piece in held]

    def blocks(self, run: Flat) -> Iterator[memoryview]:
        """The elements of the run in blocks of ``PIECE_BYTES``; the last may be shorter.

        Raises:
            CheckpointError: a file ends too early.
        """
        items = PIECE_BYTES // self._item
        for start in range(run.start, run.stop, items):
            part = Flat(start, min(start + items, run.stop))
            block = memoryview(bytearray(part.volume * self._item))
            boxes = flat_to_boxes(self._tensor.shape, part)
            for region, path, begin in self._pieces:
                if runs := _shared(self._tensor.shape, boxes, region):
                    self._fill(block, part, runs, region, path, begin)
            yield block

    def _fill(self, block: memoryview, part: Flat, runs: Sequence[Flat], region: Box, path: str, begin: int) -> None:
        """Reads what a piece has of the block at once: between its first and its last element all belong to it."""
        shape, item = self._tensor.shape, self._item
        first = offset_in(shape, region, runs[0].start)
        size = sum(run.volume for run in runs) * item
        whole_read = len(runs) == 1
        target = (runs[0].start - part.start) * item
        buffer = block[target : target + size] if whole_read else memoryview(bytearray(size))
        self._folder.storage.read_ranges(path, [RangeRead(begin + first * item, buffer)])
        if whole_read:
            return
        position = 0
        for run in runs:
            target, size = (run.start - part.start) * item, run.volume * item
            block[target : target + size] = buffer[position : position + size]
            position += size


def _shared(shape: Shape, boxes: Sequence[Box], region: Box) -> list[Flat]:
    """The row-major runs of the boxes that lie in the region, ascending."""
    common = (intersect(box, region) for box in boxes)
    return [run for box in common if box is not None for run in region_to_runs(shape, box)]
