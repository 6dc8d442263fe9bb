"""Reads a corpus and writes its token ids."""

from __future__ import annotations

import hashlib
import time
from array import array
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from trainctl.core.errors import DataError
from trainctl.core.records.train_spec import CorruptSpec
from trainctl.core.units import format_count, format_duration
from trainctl.parallel.data.corpus import Corpus
from trainctl.parallel.data.corrupt import CorruptLedger, Skipped
from trainctl.parallel.data.formats.port import Content
from trainctl.parallel.data.progress import Progress, say
from trainctl.parallel.data.records import CorpusReader, Split
from trainctl.parallel.data.tokenizer import TextTokenizer

_BATCH_CHARACTERS = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitCounts:
    """What was written of one part.

    Attributes:
        tokens: in ``<split>.bin``.
        documents: in ``<split>.ends``.
    """

    tokens: int
    documents: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenCounts:
    """What was written.

    Attributes:
        train: training data.
        held_out: held-out data.
        dtype: of the ids, in numpy's spelling.
        digest: of all ids, documents and skipped records.
        skipped: records that could not be read.
    """

    train: SplitCounts
    held_out: SplitCounts
    dtype: str
    digest: str
    skipped: Skipped


class _Writer:
    """Tokens and document ends of one part, in files; texts are encoded many at a time to use all cores."""

    def __init__(self, folder: Path, split: Split, tokenizer: TextTokenizer, dtype: np.dtype[Any]) -> None:
        self._tokenizer = tokenizer
        self._dtype = dtype
        self._file: BinaryIO = (folder / f"{split.value}.bin").open("wb")
        self._ends_path = folder / f"{split.value}.ends"
        self._ends = array("Q")
        self._waiting: list[tuple[bool, Content]] = []
        self._waiting_size = 0
        self._hasher = hashlib.blake2b(digest_size=16)
        self._tokens = 0

    def add(self, content: Content, *, begins: bool) -> None:
        """The next record."""
        self._waiting.append((begins, content))
        self._waiting_size += len(content)
        if self._waiting_size >= _BATCH_CHARACTERS:
            self._flush()

    def finish(self) -> tuple[SplitCounts, str]:
        """Writes the rest; what there is, and its digest."""
        self._flush()
        self._end_document()
        self._ends_path.write_bytes(np.array(self._ends, dtype="<u8").tobytes())
        self._hasher.update(self._ends_path.read_bytes())
        return SplitCounts(tokens=self._tokens, documents=len(self._ends)), self._hasher.hexdigest()

    def __enter__(self) -> _Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def _flush(self) -> None:
        texts = [content for _, content in self._waiting if isinstance(content, str)]
        encoded = self._tokenizer.encode(texts)
        for begins, content in self._waiting:
            ids = next(encoded) if isinstance(content, str) else content
            if begins:
                self._end_document()
            data = ids.astype(self._dtype)
            self._file.write(data.data)
            self._hasher.update(data.data)
            self._tokens += len(data)
        self._waiting, self._waiting_size = [], 0

    def _end_document(self) -> None:
        if self._tokens > (self._ends[-1] if self._ends else 0):
            self._ends.append(self._tokens)


def build_tokens(corpus: Corpus, tokenizer: TextTokenizer, corrupt: CorruptSpec, folder: Path) -> TokenCounts:
    """Writes ``train.bin``, ``train.ends``, ``held_out.bin`` and ``held_out.ends`` into ``folder``.

    Raises:
        DataError: a file or too many records cannot be read, or there is no training data at all.
    """
    started_s = time.monotonic()
    dtype = np.dtype("<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4")
    ledger = CorruptLedger(corrupt, corpus.uri)
    progress = Progress(f"tokenizing {corpus.uri}", total_bytes=corpus.size_bytes)
    reader = CorpusReader(corpus, vocab_size=tokenizer.vocab_size)
    with (
        _Writer(folder, Split.TRAIN, tokenizer, dtype) as train,
        _Writer(folder, Split.HELD_OUT, tokenizer, dtype) as held_out,
    ):
        writers = {Split.TRAIN: train, Split.HELD_OUT: held_out}
        for located in reader.records(ledger, on_read=progress.advance):
            writers[located.split].add(located.content, begins=located.record.begins)
        (train_counts, train_digest), (held_out_counts, held_out_digest) = train.finish(), held_out.finish()
    if not train_counts.tokens:
        raise nothing_there(corpus, ledger.skipped)
    digests = f"{train_digest} {held_out_digest} {ledger.skipped.digest}"
    say(
        f"tokenized {corpus.uri}: {len(corpus.files)} files, {train_counts.tokens} training tokens in "
        f"{train_counts.documents} documents and {held_out_counts.tokens} held-out tokens, "
        f"{ledger.skipped.count} corrupt records skipped, in {format_duration(time.monotonic() - started_s)}"
    )
    return TokenCounts(
        train=train_counts,
        held_out=held_out_counts,
        dtype=dtype.str,
        digest=hashlib.blake2b(digests.encode(), digest_size=16).hexdigest(),
        skipped=ledger.skipped,
    )


def nothing_there(corpus: Corpus, skipped: Skipped) -> DataError:
    """What is raised where a corpus has no training data."""
    files = format_count(len(corpus.files), "file")
    found = f"{files} without any text"
    if skipped.count:
        found = f"{files} with {format_count(skipped.count, 'corrupt record')}, the first: {skipped.first[0]}"
    return DataError(
        f"expected text at {corpus.uri}, found {found}",
        hint=f"give another {corpus.path}.uri or {corpus.path}.include",
    )
