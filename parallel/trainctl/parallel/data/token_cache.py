"""A corpus as token ids in files that the workers of a node share: built once, then mapped in milliseconds.

Folder ``<cache>/tokens/<key>``: for training and held-out data a ``.bin`` with the ids (little-endian uint16, or uint32
for vocabularies over 65536) and an ``.ends`` with the ends of the documents (uint64), and ``meta.json``. The key covers
path, size and version of every file and the tokenizer. A cache is built under another name beside it and renamed when
whole, so a builder that dies leaves nothing that anybody reads; the next one clears its remains away.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainctl.core.codec import WireError, from_wire, to_wire
from trainctl.core.json_text import read_object
from trainctl.core.records.train_spec import CorruptSpec
from trainctl.core.system.files import write_atomically
from trainctl.parallel.data.cache_folder import cached_folder
from trainctl.parallel.data.corpus import Corpus
from trainctl.parallel.data.corrupt import Skipped
from trainctl.parallel.data.records import Split
from trainctl.parallel.data.token_builder import SplitCounts, TokenCounts, build_tokens
from trainctl.parallel.data.tokenizer import TextTokenizer

_FORMAT = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitTokens:
    """One part of a corpus.

    Attributes:
        ids: shape (tokens,), mapped from disk.
        ends: behind the last token of each document, shape (documents,), mapped from disk.
    """

    ids: NDArray[np.generic]
    ends: NDArray[np.generic]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """A corpus, ready to train on.

    Attributes:
        train: training data.
        held_out: held-out data; may be empty.
        digest: of the ids, documents and skipped records.
        skipped: records that could not be read.
    """

    train: SplitTokens
    held_out: SplitTokens
    digest: str
    skipped: Skipped


def open_tokens(
    corpus: Corpus, tokenizer: TextTokenizer, *, corrupt: CorruptSpec, cache_dir: Path, deadline_s: float
) -> Tokens:
    """The tokens of a corpus from the cache; the first worker of a node builds them, the others wait for it.

    Raises:
        DataError: the corpus is unreadable or empty, or the cache cannot be written.
        UnavailableError: another worker was still building after ``deadline_s`` seconds; names it.
    """

    def build(folder: Path) -> None:
        counts = build_tokens(corpus, tokenizer, corrupt, folder)
        write_atomically(folder / "meta.json", json.dumps(to_wire(counts)).encode())

    return cached_folder(
        cache_dir / "tokens" / _key(corpus, tokenizer),
        build=build,
        read=_read,
        corpus=corpus,
        advice="the cache takes one to four times the size of the text",
        deadline_s=deadline_s,
    )


def corpus_identity(corpus: Corpus, tokenizer: TextTokenizer) -> dict[str, object]:
    """Everything that the samples of a corpus depend on."""
    return {
        "files": [asdict(file) for file in corpus.files],
        "format": corpus.source.format,
        "field": corpus.source.field,
        "holdOutEvery": corpus.hold_out_every,
        "tokenizer": hashlib.blake2b(tokenizer.to_json().encode(), digest_size=16).hexdigest(),
        "vocabSize": tokenizer.vocab_size,
    }


def _key(corpus: Corpus, tokenizer: TextTokenizer) -> str:
    identity = {"version": _FORMAT, **corpus_identity(corpus, tokenizer)}
    return hashlib.blake2b(json.dumps(identity, sort_keys=True).encode(), digest_size=12).hexdigest()


def _read(folder: Path) -> Tokens | None:
    """The cache in ``folder``, None if there is none or its files do not have the sizes they should have."""
    try:
        counts = from_wire(TokenCounts, read_object(folder / "meta.json"))
        train = _map_split(folder, Split.TRAIN, counts.train, counts.dtype)
        held_out = _map_split(folder, Split.HELD_OUT, counts.held_out, counts.dtype)
    except (FileNotFoundError, NotADirectoryError, ValueError, WireError):
        return None
    return Tokens(train=train, held_out=held_out, digest=counts.digest, skipped=counts.skipped)


def _map_split(folder: Path, split: Split, counts: SplitCounts, dtype: str) -> SplitTokens:
    return SplitTokens(
        ids=map_array(folder / f"{split.value}.bin", counts.tokens, dtype),
        ends=map_array(folder / f"{split.value}.ends", counts.documents, "<u8"),
    )


def map_array(path: Path, count: int, dtype: np.dtype[np.generic] | str) -> NDArray[np.generic]:
    """A file of ``count`` entries, mapped; ValueError where it has another size."""
    if path.stat().st_size != count * np.dtype(dtype).itemsize:
        raise ValueError(f"expected {count} entries in {path}")
    if count == 0:  # an empty file cannot be mapped
        return np.empty(0, dtype=dtype)
    return np.asarray(np.memmap(path, dtype=dtype, mode="r"))  # plain: slices of a memmap cost ten times more
