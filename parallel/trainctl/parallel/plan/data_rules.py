"""What may stand in ``spec.train.data`` and ``spec.train.tokenizer``; pure, so that a submission is checked with it."""

from __future__ import annotations

import math
from collections.abc import Iterator

from trainctl.core.errors import Problem
from trainctl.core.findings import Finding, one_of
from trainctl.core.records.train_spec import DataSourceSpec, TokenizerSpec, TrainDataSpec
from trainctl.parallel.plan.data_names import CORRUPT_POLICIES, FORMATS, MODES, PACKINGS, TOKENIZER_KINDS
from trainctl.parallel.plan.mixture import MAX_CYCLE, parts

DATA = "spec.train.data"
TOKENIZER = "spec.train.tokenizer"
NUM_BYTES = 256
MAX_PREFETCH = 1024
_GUESSED_VOCABULARY = 1 << 15


def data_problems(data: TrainDataSpec) -> tuple[Problem, ...]:
    """Everything wrong with the data that shows without touching a disk."""
    return tuple(Problem(path=f"{DATA}.{path}", message=message) for path, message in _data(data))


def tokenizer_problems(tokenizer: TokenizerSpec) -> tuple[Problem, ...]:
    """Everything wrong with the tokenizer that shows without touching a disk."""
    return tuple(Problem(path=f"{TOKENIZER}.{path}", message=message) for path, message in _tokenizer(tokenizer))


def likely_vocabulary(tokenizer: TokenizerSpec) -> int:
    """Entries for an estimate: what a tokenizer's file has is known once it is read."""
    return tokenizer.vocab_size or (NUM_BYTES if tokenizer.kind == "bytes" else _GUESSED_VOCABULARY)


def _data(data: TrainDataSpec) -> Iterator[Finding]:
    yield from one_of("packing", data.packing, *PACKINGS)
    yield from one_of("mode", data.mode, *MODES)
    yield from one_of("corrupt.policy", data.corrupt.policy, *CORRUPT_POLICIES)
    if data.corrupt.max_records < 0:
        yield "corrupt.maxRecords", f"expected at least 0, found {data.corrupt.max_records}"
    if not 0 <= data.prefetch <= MAX_PREFETCH:
        yield "prefetch", f"expected 0 to {MAX_PREFETCH} batches, found {data.prefetch}"
    if not data.sources:
        yield from _source("", DataSourceSpec(uri=data.uri, format=data.format, field=data.field, include=data.include))
        return
    for name in ("uri", "format", "field", "include"):
        if getattr(data, name) != getattr(TrainDataSpec(), name):
            yield name, "belongs into each of sources where there are sources; leave it out here"
    for number, source in enumerate(data.sources):
        yield from _source(f"sources[{number}].", source)
    yield from _weights(data.sources)


def _source(prefix: str, source: DataSourceSpec) -> Iterator[Finding]:
    yield from one_of(f"{prefix}format", source.format, *FORMATS)
    for name in ("uri", "field", "include"):
        if not getattr(source, name):
            yield f"{prefix}{name}", "expected some text, found none"
    folders, slash, name = source.include.rpartition("/")
    if slash:
        advice = f'write "{name or "*"}"' if folders in ("**", ".") else "put the folder into uri"
        yield (
            f"{prefix}include",
            f'expected a pattern for the names of files, found "{source.include[:100]}": files are looked for in all '
            f"folders below uri; {advice}",
        )


def _weights(sources: tuple[DataSourceSpec, ...]) -> Iterator[Finding]:
    good = True
    for number, source in enumerate(sources):
        if not (math.isfinite(source.weight) and source.weight > 0):
            good = False
            yield f"sources[{number}].weight", f"expected a number greater than 0 and finite, found {source.weight:g}"
    if not good:
        return
    total = sum(source.weight for source in sources)
    for number, part in enumerate(parts([source.weight for source in sources])):
        if not part:
            share = sources[number].weight / total
            yield f"sources[{number}].weight", f"expected a share of at least 1 in {MAX_CYCLE}, found {share:g}"


def _tokenizer(tokenizer: TokenizerSpec) -> Iterator[Finding]:
    kind, size = tokenizer.kind, tokenizer.vocab_size
    yield from one_of("kind", kind, *TOKENIZER_KINDS)
    if kind == "file" and not tokenizer.path:
        yield "path", "is required by kind file: a tokenizer.json, or a folder with one"
    if kind in ("bytes", "bpe") and tokenizer.path:
        yield "path", f"is for kind file, and kind is {kind}: leave it out"
    if kind == "bytes" and size not in (0, NUM_BYTES):
        yield "vocabSize", f"expected {NUM_BYTES} for the bytes tokenizer, found {size}"
    if kind == "bpe" and size <= NUM_BYTES:
        yield "vocabSize", f"expected at least {NUM_BYTES + 1} for bpe (every byte is an entry), found {size}"
    if kind == "file" and size < 0:
        yield "vocabSize", f"expected 0 (what the file has) or more, found {size}"
