"""What the manifests say, as records. Their JSON form is ``core.codec``'s; readers ignore fields they do not know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from trainctl.checkpoint.layout.key import StateKey, StateVersion
from trainctl.checkpoint.layout.region import Box, Flat, Region
from trainctl.core.errors import CheckpointError

TCF_VERSION = 1
TCF_KEYS = 2
"""Of a root manifest that has objects with keys that are no texts: readers of version 1 would misread them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkRecord:
    """A region of a tensor and the bytes that hold it, row-major.

    Attributes:
        file: index into the part's files.
        begin_bytes: where it begins in the file.
        size_bytes: how long it is.
        checksums: one per ``PartManifest.block_bytes``, the last block may be shorter.
        flat: ``(start, stop)`` if it is a flat range.
        offsets: of the box, if it is one.
        lengths: of the box, if it is one.
    """

    file: int
    begin_bytes: int
    size_bytes: int
    checksums: tuple[str, ...]
    flat: tuple[int, ...] | None = None
    offsets: tuple[int, ...] | None = None
    lengths: tuple[int, ...] | None = None

    @classmethod
    def of(
        cls, region: Region, *, file: int, begin_bytes: int, size_bytes: int, checksums: tuple[str, ...]
    ) -> ChunkRecord:
        """The record of a region."""
        where = cls(file=file, begin_bytes=begin_bytes, size_bytes=size_bytes, checksums=checksums)
        if isinstance(region, Flat):
            return replace(where, flat=(region.start, region.stop))
        return replace(where, offsets=region.offsets, lengths=region.lengths)

    @property
    def region(self) -> Region:
        """The region.

        Raises:
            CheckpointError: it is of a kind that this version does not know.
        """
        if self.flat is not None and len(self.flat) == 2:
            return Flat(*self.flat)
        if self.offsets is not None and self.lengths is not None and len(self.offsets) == len(self.lengths):
            return Box(self.offsets, self.lengths)
        raise CheckpointError("expected a chunk with a flat range or a box, found neither", hint="use a newer trainctl")


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRecord:
    """One logical tensor and the chunks of it that this part holds."""

    fqn: str
    kind: str
    dtype: str
    instance: str
    shape: tuple[int, ...]
    chunks: tuple[ChunkRecord, ...]

    def key(self, version: StateVersion) -> StateKey:
        """Its key in the layout algebra."""
        return StateKey(self.fqn, self.kind, self.dtype, self.instance, version)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """A data file: path inside the attempt, size, and size and checksum of its header."""

    path: str
    size_bytes: int
    header_bytes: int
    header_checksum: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PartManifest:
    """What one writer wrote."""

    tcf: int
    writer: int
    step: int
    attempt: str
    checksum: str
    block_bytes: int
    files: tuple[FileRecord, ...]
    tensors: tuple[TensorRecord, ...]


HeldRows = tuple[tuple[int, ...], ...]
"""What a part holds, by the numbers of the tensors (``manifest.contents``): first tensor, how many, and of each start
and stop of a flat range, or the offsets and then the lengths of a box, which has two dims at least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedRecord:
    """How tensors lie over the parts: ``writers[i]`` has the elements ``starts[i]:stops[i]``.

    Attributes:
        writers: of each region.
        starts: first element of each.
        stops: behind the last element of each.
        boxes: where some are boxes, for each its offsets and then its lengths; empty for a flat range. Readers that do
            not know it look into every part that may have something of what lies between.
    """

    writers: tuple[int, ...]
    starts: tuple[int, ...]
    stops: tuple[int, ...]
    boxes: tuple[tuple[int, ...], ...] | None = None

    @property
    def regions(self) -> tuple[Region, ...]:
        """Of each writer."""
        runs = map(Flat, self.starts, self.stops)
        boxes = self.boxes or ((),) * len(self.starts)
        return tuple(_box(box) if box else run for run, box in zip(runs, boxes, strict=True))


def _box(ends: tuple[int, ...]) -> Box:
    dims = len(ends) // 2
    return Box(ends[:dims], ends[dims:])


def region_of_row(ends: tuple[int, ...]) -> Region:
    """The region at the end of a row of ``HeldRows``."""
    return Flat(*ends) if len(ends) == 2 else _box(ends)


@dataclass(frozen=True, slots=True, kw_only=True)
class AlikeRecord:
    """Tensors of one shape that lie alike.

    Attributes:
        dtype: of each.
        instance: of each.
        shape: of each.
        placed: index into ``ContentsManifest.placed``.
        fqns: one per tensor.
        kinds: one per tensor.
    """

    dtype: str
    instance: str
    shape: tuple[int, ...]
    placed: int
    fqns: tuple[str, ...]
    kinds: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentsManifest:
    """Which part holds which ranges of which tensors."""

    tcf: int
    step: int
    attempt: str
    placed: tuple[PlacedRecord, ...]
    tensors: tuple[AlikeRecord, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A file of the attempt that has to be there with this size; artifacts have a hash, data files have checksums."""

    path: str
    size_bytes: int
    sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartReport:
    """What a writer tells the coordinator when its part is durable; goes into the root manifest, without ``held``.

    Attributes:
        writer: which one.
        attempt: what it belongs to; two attempts are never mixed.
        manifest: its part manifest, with hash.
        files: its data files.
        data_bytes: tensor bytes in them.
        seconds: what it took, by stage (``monitor.STAGES``), for people.
        held: for the table of contents; None: a writer of an older version, which does not say.
    """

    writer: int
    attempt: str
    manifest: StoredFile
    files: tuple[StoredFile, ...]
    data_bytes: int
    seconds: Mapping[str, float] = field(default_factory=dict[str, float])
    held: HeldRows | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ParentRecord:
    """The checkpoint that this one continues."""

    job: str
    step: int
    attempt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RootManifest:
    """The commit of an attempt. Complete means: it parses, its hash matches, and every file in it is there, full size.

    Attributes:
        tcf: major version of the format.
        job: uid of the job.
        step: step that the state is at.
        attempt: id of the attempt.
        lineage: chain of steps it belongs to.
        epoch: leader's fencing epoch ``E`` when the save began.
        created: RFC 3339 in UTC; the later of two of one step is the newer.
        parent: the checkpoint before, in this lineage or the one it rolled back to.
        ancestors: jobs that this one went on from, oldest first.
        parts: one per writer.
        artifacts: files beside the tensors.
        tensors: number of logical tensors.
        data_bytes: their bytes.
        schema_sha256: ``schema_digest`` of the state.
        aliases: tied names -> the name that is stored.
        objects: values encoded by ``manifest.values``.
        layout: ``chunked``, or ``hf``: parameters lie in files that transformers loads, each written by many ranks.
        index: of those files, where there are several.
        contents: the table of contents; None in checkpoints of older versions.
        self_sha256: hash of this manifest with this field empty.
    """

    tcf: int
    job: str
    step: int
    attempt: str
    lineage: int
    epoch: int
    created: str
    parts: tuple[PartReport, ...]
    artifacts: tuple[StoredFile, ...]
    tensors: int
    data_bytes: int
    schema_sha256: str
    aliases: Mapping[str, str] = field(default_factory=dict[str, str])
    objects: Mapping[str, object] = field(default_factory=dict[str, object])
    parent: ParentRecord | None = None
    ancestors: tuple[str, ...] = ()
    self_sha256: str = ""
    layout: str = "chunked"
    index: StoredFile | None = None
    contents: StoredFile | None = None

    @property
    def version(self) -> StateVersion:
        """The version in the keys of its tensors."""
        return StateVersion(self.lineage, self.step)

    @property
    def stored_files(self) -> tuple[StoredFile, ...]:
        """Every file that has to be there, each once: several writers may have written to one."""
        parts = (file for part in self.parts for file in (part.manifest, *part.files))
        return tuple(dict.fromkeys((*parts, *self.beside)))

    @property
    def beside(self) -> tuple[StoredFile, ...]:
        """Files that no writer of a part wrote; each has its hash."""
        return (*self.artifacts, *(file for file in (self.index, self.contents) if file is not None))
