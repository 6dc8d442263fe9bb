"""Indexes of corpora in the cache of a node, by the corpus and everything the number of samples depends on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

from trainctl.core.codec import WireError, from_wire, to_wire
from trainctl.core.json_text import read_object
from trainctl.core.records.train_spec import CorruptSpec
from trainctl.core.system.files import write_atomically
from trainctl.parallel.data.cache_folder import cached_folder
from trainctl.parallel.data.corpus import Corpus
from trainctl.parallel.data.corrupt import Skipped
from trainctl.parallel.data.records import CorpusReader, Split
from trainctl.parallel.data.stream_index import Groups, index_corpus
from trainctl.parallel.data.stream_rows import Cutting, GroupReader, StreamRows
from trainctl.parallel.data.token_cache import corpus_identity
from trainctl.parallel.data.tokenizer import TextTokenizer

_FORMAT = 2
_GROUP_BYTES_PER_POSITION = 256
"""Some 64 samples a group at 4 bytes a token: what is lost at the end of a group is a percent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexFacts:
    """What was found while indexing.

    Attributes:
        digest: of all contents, documents and skipped records.
        skipped: records that could not be read.
        per_size: rows for each byte of text.
    """

    digest: str
    skipped: Skipped
    per_size: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Streamed:
    """A corpus, ready to be read as needed.

    Attributes:
        train: rows of the training data.
        held_out: of the held-out data; may be none.
        facts: what was found while indexing.
    """

    train: StreamRows
    held_out: StreamRows
    facts: IndexFacts


def open_streamed(
    corpus: Corpus,
    tokenizer: TextTokenizer,
    *,
    packing: str,
    context: int,
    corrupt: CorruptSpec,
    cache_dir: Path,
    deadline_s: float,
) -> Streamed:
    """A corpus by its index; the first worker of a node makes it, the others wait for it.

    Raises:
        DataError: the corpus is unreadable or empty, or the cache cannot be written.
        UnavailableError: another worker was still indexing after ``deadline_s`` seconds; names it.
    """
    reader = CorpusReader(corpus, vocab_size=tokenizer.vocab_size)
    cutting = Cutting(packing=packing, context=context)

    def build(folder: Path) -> None:
        indexed = index_corpus(reader, corrupt, group_bytes=_GROUP_BYTES_PER_POSITION * context)
        for split, groups in indexed.splits.items():
            groups.write(folder, split)
        per_size = GroupReader(reader, tokenizer, indexed.splits[Split.TRAIN], cutting).measure()
        facts = IndexFacts(digest=indexed.digest, skipped=indexed.skipped, per_size=per_size)
        write_atomically(folder / "meta.json", json.dumps(to_wire(facts)).encode())

    splits, facts = cached_folder(
        cache_dir / "indexes" / _key(corpus, tokenizer, cutting),
        build=build,
        read=_read,
        corpus=corpus,
        advice="an index takes some 200 bytes for each megabyte of text",
        deadline_s=deadline_s,
    )
    cutting = replace(cutting, per_size=facts.per_size)
    rows = {
        split: StreamRows(groups, cutting.counts(groups), GroupReader(reader, tokenizer, groups, cutting))
        for split, groups in splits.items()
    }
    return Streamed(train=rows[Split.TRAIN], held_out=rows[Split.HELD_OUT], facts=facts)


def _key(corpus: Corpus, tokenizer: TextTokenizer, cutting: Cutting) -> str:
    identity = {"version": _FORMAT, **corpus_identity(corpus, tokenizer), "cutting": to_wire(cutting)}
    return hashlib.blake2b(json.dumps(identity, sort_keys=True).encode(), digest_size=12).hexdigest()


def _read(folder: Path) -> tuple[dict[Split, Groups], IndexFacts] | None:
    try:
        facts = from_wire(IndexFacts, read_object(folder / "meta.json"))
        return {split: Groups.read(folder, split) for split in Split}, facts
    except (FileNotFoundError, NotADirectoryError, ValueError, WireError):
        return None
