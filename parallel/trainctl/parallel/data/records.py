"""The records of a corpus in order, each in training or held-out data; and any stretch of a file again."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

from trainctl.core.errors import DataError
from trainctl.parallel.data.corpus import Corpus
from trainctl.parallel.data.corrupt import CorruptLedger
from trainctl.parallel.data.formats.choice import format_for
from trainctl.parallel.data.formats.port import Content, CorpusFile, Format, Record


class Split(StrEnum):
    """Which part of the data a record belongs to."""

    TRAIN = "train"
    HELD_OUT = "held_out"


@dataclass(frozen=True, slots=True)
class Located:
    """A readable record and where it belongs.

    Attributes:
        split: training or held-out data.
        file: number of its file in the corpus.
        record: as it was read.
        content: of the record.
        shared: records of the other part stand in the same file, before and behind it.
    """

    split: Split
    file: int
    record: Record
    content: Content
    shared: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """Neighbouring records of one file.

    Attributes:
        file: number of the file in the corpus.
        start: position of the first record.
        stop: position behind the last one.
        number: of the first record in the file.
        begins: a document begins with the first record.
        split: where both parts share a file, take only the records of this one; None: take all.
    """

    file: int
    start: int
    stop: int
    number: int
    begins: bool
    split: Split | None


class CorpusReader:
    """Reads a corpus.

    The n-th, 2n-th, ... file is held out. In a corpus of fewer than n files it is every n-th record of each file, and
    the last n-th of a file that is one long document.

    Args:
        corpus: where.
        vocab_size: of the tokenizer; token shards must not have other ids.
    """

    def __init__(self, corpus: Corpus, *, vocab_size: int) -> None:
        self.corpus = corpus
        self._vocab_size = vocab_size
        self._by_file = len(corpus.files) >= corpus.hold_out_every > 0

    def format(self, file: CorpusFile) -> Format:
        """How a file is read.

        Raises:
            DataError: the package that reads it is not installed.
        """
        source = self.corpus.source
        return format_for(source.format, file.path, field=source.field, vocab_size=self._vocab_size)

    def records(
        self, ledger: CorruptLedger | None, *, on_read: Callable[[int], None] | None = None
    ) -> Iterator[Located]:
        """All readable records.

        Args:
            ledger: takes note of the others; None passes over them in silence.
            on_read: called with the stored size of each file that was read.

        Raises:
            DataError: a file cannot be read, or there are more corrupt records than allowed.
        """
        every = self.corpus.hold_out_every
        for number, file in enumerate(self.corpus.files):
            with self._named(file):
                reader, cut = self.format(file), None
                if every and not self._by_file:
                    cut = reader.held_out_from(self.corpus.filesystem, file, every=every)
                shared = bool(every) and not self._by_file and cut is None
                for record in reader.read(self.corpus.filesystem, file, cut=cut):
                    if record.content is not None:
                        yield Located(self._split(number, record, cut), number, record, record.content, shared)
                    elif ledger is not None:
                        ledger.note(number, file, record)
            if on_read is not None:
                on_read(file.size_bytes)

    def extent(self, extent: Extent) -> Iterator[tuple[bool, Content]]:
        """The readable records of an extent again, each with whether a document begins with it.

        Raises:
            DataError: the file cannot be read.
        """
        file = self.corpus.files[extent.file]
        with self._named(file):
            reader = self.format(file)
            records = reader.read(
                self.corpus.filesystem, file, start=extent.start, number=extent.number, cut=extent.stop
            )
            for record in records:
                if record.start >= extent.stop:
                    return
                wanted = extent.split is None or self._record_split(record) is extent.split
                if record.content is not None and wanted:
                    yield extent.begins if record.start == extent.start else record.begins, record.content

    def _split(self, file: int, record: Record, cut: int | None) -> Split:
        every = self.corpus.hold_out_every
        if not every:
            return Split.TRAIN
        if self._by_file:
            return Split.TRAIN if (file + 1) % every else Split.HELD_OUT
        if cut is not None:
            return Split.TRAIN if record.start < cut else Split.HELD_OUT
        return self._record_split(record)

    def _record_split(self, record: Record) -> Split:
        return Split.TRAIN if (record.number + 1) % self.corpus.hold_out_every else Split.HELD_OUT

    @contextmanager
    def _named(self, file: CorpusFile) -> Generator[None, None, None]:
        """Errors of the storage, with the name of the file."""
        try:
            yield
        except (OSError, ValueError) as error:
            raise DataError(
                f"expected a readable file at {file.path} (corpus {self.corpus.uri}), "
                f"found: {type(error).__name__}: {error}",
                hint=f"repair, remove or exclude the file ({self.corpus.path}.include), then submit again",
            ) from error
