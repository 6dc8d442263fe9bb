"""Reads a corpus once or twice and writes its token ids: first the tokenizer, then the tokens."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainctl.core.errors import DataError, SpecError
from trainctl.core.records.train_spec import TokenizerSpec
from trainctl.core.system.files import write_atomically
from trainctl.core.units import format_bytes, format_duration
from trainctl.parallel.data.corpus import Corpus, Split
from trainctl.parallel.data.progress import Progress, say
from trainctl.parallel.data.tokenizer import TextTokenizer, byte_tokenizer, check_tokenizer, train_bpe

BPE_SAMPLE_BYTES = 16 << 20
_PIECE_CHARACTERS = 64 << 10
_BATCH_CHARACTERS = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenCounts:
    """What was written.

    Attributes:
        train: training tokens.
        held_out: held-out tokens.
        dtype: of both files, in numpy's spelling.
        kind: of the tokenizer.
        digest: of the tokenizer and all ids.
    """

    train: int
    held_out: int
    dtype: str
    kind: str
    digest: str


def build_tokens(corpus: Corpus, spec: TokenizerSpec, folder: Path) -> TokenCounts:
    """Writes ``tokenizer.json``, ``train.bin`` and ``held_out.bin`` into ``folder``.

    Raises:
        DataError: a file cannot be read, or there is no text at all.
        SpecError: the tokenizer's settings are impossible.
    """
    started_s = time.monotonic()
    tokenizer = _make_tokenizer(corpus, spec)
    write_atomically(folder / "tokenizer.json", tokenizer.to_json().encode())
    dtype = np.dtype("<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4")
    hasher = hashlib.blake2b(tokenizer.to_json().encode(), digest_size=16)
    counts = dict.fromkeys(Split, 0)
    with (folder / "train.bin").open("wb") as train, (folder / "held_out.bin").open("wb") as held_out:
        files = {Split.TRAIN: train, Split.HELD_OUT: held_out}
        for split, texts in _batches(corpus):
            for ids in tokenizer.encode(texts):
                data = ids.astype(dtype)
                files[split].write(data.data)
                hasher.update(data.data)
                counts[split] += len(data)
    if not counts[Split.TRAIN]:
        raise DataError(
            f"expected text at {corpus.uri}, found {len(corpus.files)} files of which all are empty",
            hint="give another spec.train.data.uri or spec.train.data.include",
        )
    hasher.update(str(counts).encode())
    _say_result(corpus, tokenizer, counts, time.monotonic() - started_s)
    return TokenCounts(
        train=counts[Split.TRAIN],
        held_out=counts[Split.HELD_OUT],
        dtype=dtype.str,
        kind=tokenizer.kind,
        digest=hasher.hexdigest(),
    )


def _make_tokenizer(corpus: Corpus, spec: TokenizerSpec) -> TextTokenizer:
    """Bytes, or a BPE trained on a sample of the training text.

    The sample is every k-th piece of 64 Ki characters, with the smallest k that keeps it under 16 MiB by the files'
    stored sizes: a function of the files alone, so all nodes make the same tokenizer. More text barely changes it.
    """
    if problems := check_tokenizer(spec):
        raise SpecError(problems, source="tokenizer")
    if spec.kind == "bytes":
        return byte_tokenizer()
    every = max(1, -(-corpus.size_bytes // BPE_SAMPLE_BYTES))
    sample_bytes = corpus.size_bytes // every
    say(f"training a BPE of {spec.vocab_size} entries on {format_bytes(sample_bytes)} of {corpus.uri}")
    return train_bpe(_sample(corpus, every=every), vocab_size=spec.vocab_size)


def _sample(corpus: Corpus, *, every: int) -> Iterator[str]:
    position = 0
    for split, text in corpus.texts():
        if split is Split.TRAIN:
            for start in range(0, len(text), _PIECE_CHARACTERS):
                if position % every == 0:
                    yield text[start : start + _PIECE_CHARACTERS]
                position += 1


def _batches(corpus: Corpus) -> Iterator[tuple[Split, list[str]]]:
    """Texts of one split in lists of some megabytes, so that a tokenizer can use all cores."""
    progress = Progress(f"tokenizing {corpus.uri}", total_bytes=corpus.size_bytes)
    waiting: dict[Split, list[str]] = {split: [] for split in Split}
    characters = dict.fromkeys(Split, 0)
    for split, text in corpus.texts(on_read=progress.advance):
        waiting[split].append(text)
        characters[split] += len(text)
        if characters[split] >= _BATCH_CHARACTERS:
            yield split, waiting[split]
            waiting[split], characters[split] = [], 0
    yield from waiting.items()


def _say_result(corpus: Corpus, tokenizer: TextTokenizer, counts: dict[Split, int], elapsed_s: float) -> None:
    total = sum(counts.values())
    say(
        f"tokenized {corpus.uri}: {len(corpus.files)} files, {counts[Split.TRAIN]} training and "
        f"{counts[Split.HELD_OUT]} held-out tokens, {corpus.size_bytes / total:.2f} bytes a token, "
        f"vocabulary {tokenizer.vocab_size}, in {format_duration(elapsed_s)}"
    )
