"""From ``spec.train.data`` to samples: the one way in for every task."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from trainctl.core.codec import to_wire
from trainctl.core.errors import DataError
from trainctl.core.records.train_spec import TrainSpec
from trainctl.parallel.data.cache_folder import BUILD_DEADLINE_S
from trainctl.parallel.data.corpus import Corpus, names_of, open_corpus, sources_of
from trainctl.parallel.data.corrupt import Skipped, check_skipped, notice_of, together
from trainctl.parallel.data.dataset import TokenDataset
from trainctl.parallel.data.make_tokenizer import make_tokenizer
from trainctl.parallel.data.mixed_rows import AlternatingRows, MixedRows
from trainctl.parallel.data.rows import Rows, rows_of
from trainctl.parallel.data.stream_cache import open_streamed
from trainctl.parallel.data.token_cache import SplitTokens, open_tokens
from trainctl.parallel.data.tokenizer import TextTokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """What there is to train on.

    Attributes:
        train: training samples.
        held_out: held-out samples; None if nothing is evaluated.
        tokenizer: that made them; its vocabulary is the model's.
        digest: equal on two workers if and only if a sample id means the same to both.
        skipped: corrupt records that were left out.
    """

    train: TokenDataset
    held_out: TokenDataset | None
    tokenizer: TextTokenizer
    digest: str
    skipped: Skipped


@dataclass(frozen=True, slots=True)
class _Source:
    """One source, opened."""

    train: Rows
    held_out: Rows
    found: str
    held_out_found: str
    digest: str
    skipped: Skipped


def open_data(spec: TrainSpec, *, cache_dir: Path, deadline_s: float = BUILD_DEADLINE_S) -> Data:
    """Opens all sources; the first worker of a node reads them, the others wait for it.

    Raises:
        DataError: a source is missing, unreadable or too small, or has more corrupt records than allowed.
        SpecError: the tokenizer's settings are impossible.
        UnavailableError: another worker was still reading after ``deadline_s`` seconds; names it.
    """
    data = spec.data
    corpora = [
        open_corpus(source, hold_out_every=data.hold_out_every, path=path) for path, source in sources_of(data).items()
    ]
    try:
        tokenizer = make_tokenizer(spec.tokenizer, corpora, cache_dir=cache_dir, deadline_s=deadline_s)
    except OSError as error:
        hint = "make room, or allow writing there"
        raise DataError(f"expected to keep a tokenizer under {cache_dir}, found: {error}", hint=hint) from error
    sources = [_open_source(corpus, tokenizer, spec, cache_dir, deadline_s) for corpus in corpora]
    skipped = together([source.skipped for source in sources])
    check_skipped(skipped, data.corrupt, names_of(data))
    return Data(
        train=_train_set(spec, corpora, sources, notice_of(skipped)),
        held_out=_held_out_set(spec, sources) if spec.eval.every else None,
        tokenizer=tokenizer,
        digest=_digest(spec, tokenizer, sources),
        skipped=skipped,
    )


def _open_source(
    corpus: Corpus, tokenizer: TextTokenizer, spec: TrainSpec, cache_dir: Path, deadline_s: float
) -> _Source:
    data, context = spec.data, spec.model.context
    if data.mode == "streaming":
        streamed = open_streamed(
            corpus,
            tokenizer,
            packing=data.packing,
            context=context,
            corrupt=data.corrupt,
            cache_dir=cache_dir,
            deadline_s=deadline_s,
        )
        train, held_out, facts = streamed.train, streamed.held_out, streamed.facts
        return _Source(train, held_out, "no group", "0", facts.digest, facts.skipped)
    tokens = open_tokens(corpus, tokenizer, corrupt=data.corrupt, cache_dir=cache_dir, deadline_s=deadline_s)
    train_rows, held_out_rows = (_rows(part, data.packing, context) for part in (tokens.train, tokens.held_out))
    found, held_out_found = str(len(tokens.train.ids)), str(len(tokens.held_out.ids))
    return _Source(train_rows, held_out_rows, found, held_out_found, tokens.digest, tokens.skipped)


def _rows(tokens: SplitTokens, packing: str, context: int) -> Rows:
    return rows_of(tokens.ids, tokens.ends, packing=packing, context=context)


def _train_set(spec: TrainSpec, corpora: list[Corpus], sources: list[_Source], notice: str) -> TokenDataset:
    context = spec.model.context
    sets = [
        TokenDataset(
            source.train,
            context=context,
            name=f"the training text of {corpus.name}",
            expected=_least(spec),
            found=source.found,
            notice=notice,
        )
        for corpus, source in zip(corpora, sources, strict=True)
    ]
    if not spec.data.sources:
        return sets[0]
    mixed = MixedRows([source.train for source in sources], [source.weight for source in spec.data.sources])
    return TokenDataset(mixed, context=context, name="the mixture", notice=notice)


def _held_out_set(spec: TrainSpec, sources: list[_Source]) -> TokenDataset:
    """In a mixture, the sources that have held-out text, by their weights."""
    weights = [source.weight for source in spec.data.sources] or [1.0]
    some = [(source.held_out, weight) for source, weight in zip(sources, weights, strict=True) if source.held_out.count]
    rows = sources[0].held_out
    if some and spec.data.sources:
        rows = AlternatingRows([part for part, _ in some], [weight for _, weight in some])
    found = " + ".join(source.held_out_found for source in sources)
    name = "the held-out text"
    return TokenDataset(rows, context=spec.model.context, name=name, expected=_least(spec), found=found)


def _least(spec: TrainSpec) -> str:
    """What one sample takes."""
    context = spec.model.context
    if spec.data.packing != "stream" or spec.data.mode == "streaming":
        return "a document of at least two tokens"
    return f"at least {context + 1} tokens (spec.train.model.context {context} and one more)"


def _digest(spec: TrainSpec, tokenizer: TextTokenizer, sources: list[_Source]) -> str:
    data = spec.data
    identity = {
        "tokenizer": tokenizer.to_json(),
        "sources": [source.digest for source in sources],
        "skipped": [source.skipped.digest for source in sources],
        "weights": [source.weight for source in data.sources],
        "shape": [data.packing, data.mode, spec.model.context],
        "rows": [source.train.count for source in sources],
    }
    return hashlib.blake2b(json.dumps(to_wire(identity), sort_keys=True).encode(), digest_size=16).hexdigest()
