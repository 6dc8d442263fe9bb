"""The tokenizer of a run: one for all sources, trained once a node where it has to be trained."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import tokenizers

from trainctl.core.errors import DataError, SpecError
from trainctl.core.records.train_spec import TokenizerSpec
from trainctl.core.system.files import write_atomically
from trainctl.core.units import format_bytes
from trainctl.parallel.data.cache_lock import exclusive
from trainctl.parallel.data.corpus import Corpus
from trainctl.parallel.data.progress import say
from trainctl.parallel.data.records import CorpusReader, Split
from trainctl.parallel.data.tokenizer import (
    TextTokenizer,
    byte_tokenizer,
    tokenizer_from_json,
    train_bpe,
)
from trainctl.parallel.data.tokenizer_file import read_tokenizer
from trainctl.parallel.plan.data_rules import tokenizer_problems

BPE_SAMPLE_BYTES = 16 << 20
_PIECE_CHARACTERS = 64 << 10
_FORMAT = 1


def make_tokenizer(
    spec: TokenizerSpec, corpora: Sequence[Corpus], *, cache_dir: Path, deadline_s: float
) -> TextTokenizer:
    """Bytes, what is in a file, or a BPE trained on a sample of the training text of all sources.

    Raises:
        DataError: the file, or the text to train on, is missing or unreadable.
        SpecError: the settings are impossible.
        UnavailableError: another worker was still training after ``deadline_s`` seconds; names it.
    """
    if problems := tokenizer_problems(spec):
        raise SpecError(problems, source="tokenizer")
    if spec.kind == "bytes":
        return byte_tokenizer()
    if spec.kind == "file":
        return read_tokenizer(spec)
    path = cache_dir / "tokenizers" / f"{_key(spec, corpora)}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(path.with_suffix(".lock"), what="the tokenizer", deadline_s=deadline_s):
        if not path.exists():
            write_atomically(path, _train(spec, corpora).to_json().encode())
    return tokenizer_from_json(path.read_text(), kind=spec.kind)


def _key(spec: TokenizerSpec, corpora: Sequence[Corpus]) -> str:
    identity = {
        "format": _FORMAT,
        "sources": [(asdict(corpus.source), corpus.hold_out_every, *map(asdict, corpus.files)) for corpus in corpora],
        "tokenizer": asdict(spec),
        "library": tokenizers.__version__,
    }
    return hashlib.blake2b(json.dumps(identity, sort_keys=True).encode(), digest_size=12).hexdigest()


def _train(spec: TokenizerSpec, corpora: Sequence[Corpus]) -> TextTokenizer:
    """A BPE of every k-th piece of 64 Ki characters.

    k is the smallest that keeps the sample under 16 MiB by the files' stored sizes: a function of the files alone, so
    all nodes make the same tokenizer. More text barely changes it.
    """
    size_bytes = sum(corpus.size_bytes for corpus in corpora)
    every = max(1, -(-size_bytes // BPE_SAMPLE_BYTES))
    names = ", ".join(corpus.uri for corpus in corpora)
    say(f"training a BPE of {spec.vocab_size} entries on {format_bytes(size_bytes // every)} of {names}")
    pieces = _Pieces(corpora)
    trained = train_bpe(
        (piece for number, piece in enumerate(pieces) if number % every == 0), vocab_size=spec.vocab_size
    )
    if not pieces.seen:
        raise DataError(
            f"expected text to train a tokenizer on in {names}, found none",
            hint="give text, or a tokenizer made earlier: spec.train.tokenizer.kind: file",
        )
    return trained


class _Pieces:
    """The training text of all sources in pieces; remembers whether there was any."""

    def __init__(self, corpora: Sequence[Corpus]) -> None:
        self._corpora = corpora
        self.seen = False

    def __iter__(self) -> Iterator[str]:
        for corpus in self._corpora:
            for located in CorpusReader(corpus, vocab_size=1 << 32).records(None):
                if located.split is Split.TRAIN and isinstance(located.content, str):
                    for start in range(0, len(located.content), _PIECE_CHARACTERS):
                        self.seen = True
                        yield located.content[start : start + _PIECE_CHARACTERS]
