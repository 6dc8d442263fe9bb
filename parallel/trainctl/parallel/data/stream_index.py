"""What a corpus that is read when needed keeps on the node: where its groups of records are, and nothing of the text.

The index is made by reading the corpus once, so damage is found before training and all nodes can compare what they
have. It takes some 200 bytes for each megabyte of text.

A *group* is a quarter of a megabyte of neighbouring records or more (where samples are long, or reaching a place in a
file costs much), read and tokenised as a whole. It gives a fixed number of rows, so that the row of a sample id is
found without tokenising what lies before it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from zlib_ng import zlib_ng

from trainctl.core.records.train_spec import CorruptSpec
from trainctl.parallel.data.corrupt import CorruptLedger, Skipped
from trainctl.parallel.data.formats.port import Content
from trainctl.parallel.data.progress import Progress, say
from trainctl.parallel.data.records import CorpusReader, Extent, Located, Split
from trainctl.parallel.data.token_builder import nothing_there

_SPLITS: Mapping[Split, int] = {Split.TRAIN: 1, Split.HELD_OUT: 2}
_EXTENT = np.dtype(
    [("file", "<u4"), ("begins", "u1"), ("split", "u1"), ("number", "<u8"), ("start", "<u8"), ("stop", "<u8")]
)
_GROUP = np.dtype([("first", "<u8"), ("size", "<u8"), ("documents", "<u8"), ("checksum", "<u4")])


@dataclass(frozen=True, slots=True)
class Groups:
    """The groups of one part of a corpus.

    Attributes:
        extents: of all groups, in order.
        groups: first extent, size (bytes of text, or tokens), documents and checksum of the contents of each.
    """

    extents: NDArray[np.void]
    groups: NDArray[np.void]

    def extents_of(self, group: int) -> Iterator[Extent]:
        """Where the records of a group are."""
        stop = self.groups[group + 1]["first"] if group + 1 < len(self.groups) else len(self.extents)
        for entry in self.extents[self.groups[group]["first"] : stop]:
            split = next((split for split, code in _SPLITS.items() if code == entry["split"]), None)
            yield Extent(
                file=int(entry["file"]),
                start=int(entry["start"]),
                stop=int(entry["stop"]),
                number=int(entry["number"]),
                begins=bool(entry["begins"]),
                split=split,
            )

    def write(self, folder: Path, split: Split) -> None:
        """Two files."""
        (folder / f"{split.value}.extents").write_bytes(self.extents.tobytes())
        (folder / f"{split.value}.groups").write_bytes(self.groups.tobytes())

    @classmethod
    def read(cls, folder: Path, split: Split) -> Groups:
        """What ``write`` wrote; OSError or ValueError where it is not there or not whole."""
        return cls(
            *(_read(folder / f"{split.value}.{n}", kind) for n, kind in (("extents", _EXTENT), ("groups", _GROUP)))
        )


def _read(path: Path, kind: np.dtype[np.void]) -> NDArray[np.void]:
    return np.frombuffer(path.read_bytes(), dtype=kind)


class _Collector:
    """Puts the records of one part into groups as they come."""

    def __init__(self) -> None:
        self._extents: list[tuple[int, ...]] = []
        self._groups: list[tuple[int, int, int, int]] = []
        self._first = 0
        self._size = 0
        self._documents = 0
        self._checksum = 0
        self._open: tuple[int, ...] | None = None

    def add(self, located: Located, size: int, *, full_at: int) -> None:
        """The next record. A full group ends where a document begins, one twice as large anywhere."""
        record = located.record
        if self._size >= (full_at if record.begins else 2 * full_at):
            self._close_group()
        if self._open is not None and self._open[0] == located.file:
            self._open = (*self._open[:-1], record.stop)
        else:
            self._close_extent()
            code = _SPLITS[located.split] if located.shared else 0
            self._open = (located.file, int(record.begins), code, record.number, record.start, record.stop)
        self._size += size
        self._documents += record.begins
        self._checksum = checksum(located.content, self._checksum)

    def finish(self) -> Groups:
        """All groups; the last may be small."""
        self._close_group()
        return Groups(np.array(self._extents, dtype=_EXTENT), np.array(self._groups, dtype=_GROUP))

    def _close_extent(self) -> None:
        if self._open is not None:
            self._extents.append(self._open)
            self._open = None

    def _close_group(self) -> None:
        self._close_extent()
        if len(self._extents) > self._first:
            self._groups.append((self._first, self._size, self._documents, self._checksum))
        self._first, self._size, self._documents, self._checksum = len(self._extents), 0, 0, 0


@dataclass(frozen=True, slots=True)
class Indexed:
    """A corpus that was read through once.

    Attributes:
        splits: groups of each part.
        digest: of all contents, documents and skipped records.
        skipped: records that could not be read.
    """

    splits: dict[Split, Groups]
    digest: str
    skipped: Skipped


def index_corpus(reader: CorpusReader, corrupt: CorruptSpec, *, group_bytes: int) -> Indexed:
    """Reads a corpus once, and cuts it into groups of at least ``group_bytes``.

    Raises:
        DataError: a file or too many records cannot be read, or there is no training data at all.
    """
    corpus = reader.corpus
    ledger = CorruptLedger(corrupt, corpus.uri)
    progress = Progress(f"indexing {corpus.uri}", total_bytes=corpus.size_bytes)
    collectors = {split: _Collector() for split in Split}
    hasher = hashlib.blake2b(digest_size=16)
    full_at = _GroupSizes(reader, group_bytes)
    for located in reader.records(ledger, on_read=progress.advance):
        data = _bytes(located.content)
        hasher.update(f"{located.split.value} {located.record.begins} {len(data)}\n".encode())
        hasher.update(data)
        size = len(data) if isinstance(located.content, str) else len(located.content)
        if size:
            collectors[located.split].add(located, size, full_at=full_at(located.file))
    splits = {split: collector.finish() for split, collector in collectors.items()}
    if not len(splits[Split.TRAIN].groups):
        raise nothing_there(corpus, ledger.skipped)
    hasher.update(ledger.skipped.digest.encode())
    say(
        f"indexed {corpus.uri}: {len(corpus.files)} files, {len(splits[Split.TRAIN].groups)} groups to train on, "
        f"{ledger.skipped.count} corrupt records skipped, in {progress.elapsed_s:.1f} s"
    )
    return Indexed(splits, hasher.hexdigest(), ledger.skipped)


class _GroupSizes:
    """Size of a full group by file; the format is looked up once a file."""

    def __init__(self, reader: CorpusReader, least: int) -> None:
        self._reader = reader
        self._least = least
        self._of: tuple[int, int] = (-1, 0)

    def __call__(self, file: int) -> int:
        if self._of[0] != file:
            found = self._reader.corpus.files[file]
            self._of = (file, max(self._least, self._reader.format(found).group_bytes(found.path)))
        return self._of[1]


def checksum(content: Content, before: int = 0) -> int:
    """CRC-32 of what came before and this content: the same in however many pieces a text is read."""
    return zlib_ng.crc32(_bytes(content), before)  # pyright: ignore[reportUnknownMemberType]  (its data has no type)


def _bytes(content: Content) -> bytes:
    return content.encode() if isinstance(content, str) else content.tobytes()
