"""A corpus as token ids in files that the workers of a node share: built once, then mapped in milliseconds.

Folder ``<cache>/tokens/<key>``: ``train.bin`` and ``held_out.bin`` (little-endian uint16, or uint32 for vocabularies
over 65536), ``tokenizer.json`` and ``meta.json``. The key covers path, size and version of every file and the settings
of the tokenizer. A cache is built under another name beside it and renamed when whole, so a builder that dies leaves
nothing that anybody reads; the next one clears its remains away.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import tokenizers
from numpy.typing import NDArray

from trainctl.core.codec import from_wire, to_wire
from trainctl.core.errors import DataError
from trainctl.core.records.train_spec import TokenizerSpec, TrainDataSpec
from trainctl.core.system.files import write_atomically
from trainctl.core.units import format_bytes
from trainctl.parallel.data.cache_lock import exclusive
from trainctl.parallel.data.corpus import Corpus, open_corpus
from trainctl.parallel.data.token_builder import TokenCounts, build_tokens
from trainctl.parallel.data.tokenizer import TextTokenizer, tokenizer_from_json

BUILD_DEADLINE_S = 1800.0
_FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """A corpus, ready to train on.

    Attributes:
        train: ids, shape (tokens,), mapped from disk.
        held_out: as ``train``, of the held-out text; may be empty.
        tokenizer: that made them.
        digest: of the ids and the tokenizer: equal on two nodes if and only if they train on the same data.
    """

    train: NDArray[np.generic]
    held_out: NDArray[np.generic]
    tokenizer: TextTokenizer
    digest: str


def open_tokens(
    data: TrainDataSpec, tokenizer: TokenizerSpec, *, cache_dir: Path, deadline_s: float = BUILD_DEADLINE_S
) -> Tokens:
    """The tokens of a corpus from the cache; the first worker of a node builds them, the others wait for it.

    Raises:
        DataError: the corpus is missing, unreadable or empty, or the cache cannot be written.
        SpecError: the tokenizer's settings are impossible.
        UnavailableError: another worker was still building after ``deadline_s`` seconds; names it.
    """
    corpus = open_corpus(data)
    folder = cache_dir / "tokens" / _key(corpus, tokenizer)
    if (tokens := _read(folder)) is not None:
        return tokens
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with exclusive(folder.with_suffix(".lock"), what=f"the tokens of {data.uri}", deadline_s=deadline_s):
            if (tokens := _read(folder)) is None:
                _build(corpus, tokenizer, folder)
                tokens = _read(folder)
    except OSError as error:
        size = format_bytes(corpus.size_bytes)
        raise DataError(
            f"expected to write the tokens of {data.uri} ({size} of text) under {cache_dir}, found: {error}",
            hint="the cache takes two to four times the size of the text; make room, or allow writing there",
        ) from error
    if tokens is None:
        raise DataError(f"expected the token cache {folder} that was just written, found it incomplete")
    return tokens


def _key(corpus: Corpus, tokenizer: TokenizerSpec) -> str:
    identity = {
        "format": _FORMAT,
        "files": [asdict(file) for file in corpus.files],
        "holdOutEvery": corpus.hold_out_every,
        "tokenizer": asdict(tokenizer) if tokenizer.kind != "bytes" else tokenizer.kind,
        "library": tokenizers.__version__,
    }
    return hashlib.blake2b(json.dumps(identity, sort_keys=True).encode(), digest_size=12).hexdigest()


def _build(corpus: Corpus, tokenizer: TokenizerSpec, folder: Path) -> None:
    """Makes ``folder`` appear whole. The caller holds the lock."""
    unfinished = folder.with_suffix(".building")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        counts = build_tokens(corpus, tokenizer, unfinished)
        write_atomically(unfinished / "meta.json", json.dumps(to_wire(counts)).encode())
        shutil.rmtree(folder, ignore_errors=True)  # one that a power cut left incomplete
        os.replace(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _read(folder: Path) -> Tokens | None:
    """The cache in ``folder``, None if there is none or its files do not have the sizes they should have."""
    try:
        counts = from_wire(TokenCounts, json.loads((folder / "meta.json").read_text()))
        train = _map(folder / "train.bin", counts.train, counts.dtype)
        held_out = _map(folder / "held_out.bin", counts.held_out, counts.dtype)
        tokenizer = tokenizer_from_json((folder / "tokenizer.json").read_text(), kind=counts.kind)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return Tokens(train=train, held_out=held_out, tokenizer=tokenizer, digest=counts.digest)


def _map(path: Path, count: int, dtype: str) -> NDArray[np.generic]:
    if path.stat().st_size != count * np.dtype(dtype).itemsize:
        raise ValueError(f"expected {count} tokens in {path}")
    if count == 0:  # an empty file cannot be mapped
        return np.empty(0, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r")
