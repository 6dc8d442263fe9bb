"""Plans and lays out a writer's data files: safetensors, header padded so that the bodies begin on a page.

Format: u64 little-endian header length, JSON header padded with spaces, then bodies back to back in the header's order.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from trainctl.checkpoint.layout.key import StateKey
from trainctl.checkpoint.layout.region import Box, Flat, Region, Shape, one_run, order_of, part_of, volume, whole
from trainctl.checkpoint.manifest.names import entry_name
from trainctl.checkpoint.manifest.records import TCF_VERSION
from trainctl.core.errors import PlanError

MAX_FILE_BYTES = 5 << 30
"""Object stores copy single objects up to this size."""
_PAGE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Entry:
    """A region of a tensor that goes into a data file as one safetensors entry."""

    key: StateKey
    shape: Shape
    region: Region

    @property
    def name(self) -> str:
        """Name in the file."""
        return entry_name(self.key.fqn, self.key.kind, self.shape, self.region)

    @property
    def stored_shape(self) -> Shape:
        """Shape in the file: the tensor's own if it is there whole, a box's lengths, else 1-d."""
        if isinstance(self.region, Box):
            return self.region.lengths
        return self.shape if self.region == whole(self.shape) else (self.region.volume,)

    @property
    def size_bytes(self) -> int:
        """Bytes in the file."""
        return volume(self.region) * self.key.item_bytes


def cut(entry: Entry, max_bytes: int) -> Iterator[Entry]:
    """The entry as consecutive ones of at most ``max_bytes`` each."""
    items = max(1, max_bytes // entry.key.item_bytes)
    size = volume(entry.region)
    if size <= items:
        yield entry
        return
    if isinstance(entry.region, Box):  # whole rows of it are a box, too
        row = math.prod(entry.region.lengths[1:])
        items -= items % row if items > row else 0
    for start in range(0, size, items):
        for part in part_of(entry.region, Flat(start, min(start + items, size))):
            yield Entry(entry.key, entry.shape, one_run(entry.shape, part))


def into_files(entries: Iterable[Entry], max_file_bytes: int) -> list[tuple[Entry, ...]]:
    """Deals entries to files of at most ``max_file_bytes`` (an entry larger than that has a file of its own).

    Wide dtypes come first, so that every entry lies at a multiple of its item size without holes.

    Raises:
        PlanError: two entries have the same name.
    """
    files: list[list[Entry]] = []
    names: set[str] = set()
    room = 0
    for entry in sorted(entries, key=lambda e: (-e.key.item_bytes, e.key, order_of(e.region))):
        if entry.name in names:
            raise PlanError(f"expected a different name for every tensor, found {entry.name} twice")
        names.add(entry.name)
        if not files or entry.size_bytes > room:
            files.append([])
            room = max_file_bytes
        files[-1].append(entry)
        room -= entry.size_bytes
    return [tuple(file) for file in files]


def file_metadata(step: int, attempt: str) -> dict[str, str]:
    """What the header of every data file says of where it belongs."""
    return {"tcf": str(TCF_VERSION), "format": "pt", "step": str(step), "attempt": attempt}


def file_header(entries: Sequence[tuple[str, str, Shape, int]], metadata: Mapping[str, str]) -> bytes:
    """The header of a safetensors file.

    Args:
        entries: name, dtype, shape and size in bytes of each, in the order of the bodies.
        metadata: free text pairs.
    """
    fields: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    position = 0
    for name, dtype, shape, size in entries:
        fields[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, position + size]}
        position += size
    text = json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()
    padded = -(-(8 + len(text)) // _PAGE_BYTES) * _PAGE_BYTES - 8
    return padded.to_bytes(8, "little") + text.ljust(padded)
