"""What manifests must not say, whoever signed them: a hash tells that nothing changed, not that it makes sense.

Who writes into a folder of checkpoints decides what its manifests say; who reads them may be somebody else, with other
rights. So no path leads out of the attempt's folder, and no number makes a reader take memory that no file fills.
"""

from __future__ import annotations

from collections.abc import Iterator

from trainctl.checkpoint.layout.key import DTYPE_BYTES
from trainctl.checkpoint.layout.region import Flat, Shape, check_region, hull, volume
from trainctl.checkpoint.manifest.records import (
    ChunkRecord,
    ContentsManifest,
    PartManifest,
    PlacedRecord,
    RootManifest,
    TensorRecord,
)
from trainctl.checkpoint.manifest.values import decode_value
from trainctl.core.errors import CheckpointError, PlanError
from trainctl.core.texts import shortened

_MAX_BLOCK_BYTES = 64 << 20
_MAX_HEADER_BYTES = 100 << 20
"""As in the safetensors format."""


def root_problem(root: RootManifest) -> str:
    """What is wrong with a root manifest; empty if nothing is."""
    for file in root.stored_files:
        if not is_inside(file.path):
            return f"it names a file outside of its folder: {shortened(file.path)}"
        if file.size_bytes < 0:
            return f"{shortened(file.path)} has {file.size_bytes} bytes"
    try:
        objects = decode_value(root.objects)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        return f"its objects cannot be read: {shortened(str(error))}"
    return "" if isinstance(objects, dict) else "its objects have no names"


def is_inside(path: str) -> bool:
    """Whether a path of a manifest stays in the folder, also behind any number of its own first steps."""
    return "\0" not in path and not any(step in ("", ".", "..") for step in path.split("/"))


def part_problem(part: PartManifest) -> str:
    """What is wrong with a part manifest; empty if nothing is."""
    if not 0 < part.block_bytes <= _MAX_BLOCK_BYTES:
        return f"blocks have {part.block_bytes} bytes"
    for file in part.files:
        if not is_inside(file.path):
            return f"it names a file outside of its folder: {shortened(file.path)}"
        if not 0 <= file.header_bytes <= min(file.size_bytes, _MAX_HEADER_BYTES):
            return f"{file.path} has a header of {file.header_bytes} bytes"
    return next(_tensor_problems(part), "")


def _tensor_problems(part: PartManifest) -> Iterator[str]:
    for tensor in part.tensors:
        item_bytes = DTYPE_BYTES[tensor.dtype]
        if tensor.shape and min(tensor.shape) < 0:
            yield f"{tensor.kind} of {shortened(tensor.fqn)} has shape {shortened(str(list(tensor.shape)))}"
        for chunk in tensor.chunks:
            if problem := _chunk_problem(part, tensor, chunk, item_bytes):
                yield f"{tensor.kind} of {shortened(tensor.fqn)}: {problem}"


def _chunk_problem(part: PartManifest, tensor: TensorRecord, chunk: ChunkRecord, item_bytes: int) -> str:
    if not 0 <= chunk.file < len(part.files):
        return f"it lies in file {chunk.file} of {len(part.files)}"
    try:
        region = chunk.region
        check_region(tensor.shape, region)
    except (CheckpointError, PlanError) as error:
        return shortened(str(error))
    blocks = -(-chunk.size_bytes // part.block_bytes)
    if chunk.size_bytes != volume(region) * item_bytes or len(chunk.checksums) != blocks:
        return f"{chunk.size_bytes} bytes with {len(chunk.checksums)} checksums are not what its region has"
    if blocks and part.block_bytes % item_bytes:
        return f"blocks of {part.block_bytes} bytes cut its elements"
    if not 0 <= chunk.begin_bytes <= part.files[chunk.file].size_bytes - chunk.size_bytes:
        return f"it begins at {chunk.begin_bytes}, and its file has {part.files[chunk.file].size_bytes} bytes"
    return ""


def contents_problem(contents: ContentsManifest) -> str:
    """What is wrong with a table of contents; empty if nothing is."""
    for number, placed in enumerate(contents.placed):
        boxes = placed.starts if placed.boxes is None else placed.boxes
        if not len(placed.writers) == len(placed.starts) == len(placed.stops) == len(boxes):
            return f"placed[{number}] does not fit together"
    checked: set[tuple[Shape, int]] = set()
    for number, alike in enumerate(contents.tensors):
        if len(alike.fqns) != len(alike.kinds) or not 0 <= alike.placed < len(contents.placed):
            return f"tensors[{number}] does not fit together"
        if (alike.shape, alike.placed) in checked:
            continue
        checked.add((alike.shape, alike.placed))
        if (alike.shape and min(alike.shape) < 0) or not _fits(contents.placed[alike.placed], alike.shape):
            return f"tensors[{number}] does not fit its boxes"
    return ""


def _fits(placed: PlacedRecord, shape: tuple[int, ...]) -> bool:
    if any(len(box) not in (0, 2 * len(shape)) for box in placed.boxes or ()):
        return False
    try:
        for start, stop, region in zip(placed.starts, placed.stops, placed.regions, strict=True):
            check_region(shape, region)
            if hull(shape, region) != Flat(start, stop):
                return False
    except PlanError:
        return False
    return True
