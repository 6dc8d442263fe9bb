"""Without it a mixture could have other shares than written, or a resumed job train on other data without a word."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

from trainctl.core.errors import DataError, SpecError
from trainctl.core.records.train_spec import (
    BatchSpec,
    DataSourceSpec,
    EvalSpec,
    ModelSpec,
    TokenizerSpec,
    TrainDataSpec,
    TrainSpec,
)
from trainctl.parallel.data.batch import IGNORED
from trainctl.parallel.data.open_data import open_data
from unit.data.kinds import FORMATS, documents, write_corpus

BATCH = BatchSpec(sequences=8, micro_batches=4)


def _spec(data: TrainDataSpec, *, tokenizer: TokenizerSpec | None = None, context: int = 16) -> TrainSpec:
    return TrainSpec(
        data=data, tokenizer=tokenizer or TokenizerSpec(), model=ModelSpec(context=context), eval=EvalSpec()
    )


def _letters(folder: Path, letter: str, count: int) -> DataSourceSpec:
    """A source whose text is one letter."""
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:03}.txt").write_text(letter * 400)
    return DataSourceSpec(uri=str(folder), name=letter)


@pytest.mark.parametrize("mode", ["cached", "streaming"])
def test_a_mixture_has_its_shares_in_training_and_evaluation(mode: str, tmp_path: Path) -> None:
    weights = {"a": 5.0, "b": 2.0, "c": 1.0}
    sources = [_letters(tmp_path / name, name, 20 + 5 * i) for i, name in enumerate(weights)]
    weighted = [DataSourceSpec(uri=s.uri, name=s.name, weight=weights[s.name]) for s in sources]
    data = open_data(_spec(TrainDataSpec(sources=tuple(weighted), mode=mode)), cache_dir=tmp_path / "cache")
    order = data.train.order(seed=3, batch=BATCH)
    for start, length in ((0, 8), (0, 80), (1000, 400)):
        found = Counter(chr(int(row[0])) for row in data.train.batch(order.ids(start, length)).ids)
        for name, weight in weights.items():
            assert abs(found[name] - length * weight / 8) <= (1 if start == 0 else 2)
    assert data.held_out is not None
    held_out = Counter(chr(int(row[0])) for row in data.held_out.batch(range(16)).ids)
    assert held_out == {"a": 10, "b": 4, "c": 2}
    assert data.held_out.num_samples <= 8 * 25 / 5  # what the first source can give
    assert data.held_out.batch((data.held_out.num_samples - 1,)).num_targets >= 15


def test_sources_of_different_formats_and_one_tokenizer(tmp_path: Path) -> None:
    drawn = random.Random(0)
    kinds = [kind for kind in FORMATS if kind != "tokens"]
    for kind in kinds:
        write_corpus(tmp_path / kind, kind, documents(drawn, 30))
    sources = tuple(DataSourceSpec(uri=str(tmp_path / kind)) for kind in kinds)
    bpe = TokenizerSpec(kind="bpe", vocab_size=300)
    opened = [
        open_data(_spec(TrainDataSpec(sources=sources), tokenizer=bpe), cache_dir=tmp_path / node) for node in "ab"
    ]
    assert opened[0].digest == opened[1].digest
    assert 256 < opened[0].tokenizer.vocab_size == opened[1].tokenizer.vocab_size <= 300
    assert len({path.name for path in (tmp_path / "a" / "tokens").glob("*/meta.json")}) == 1
    assert len(list((tmp_path / "a" / "tokens").glob("*/meta.json"))) == len(kinds)


@pytest.mark.parametrize("change", ["context", "packing", "mode", "weight"])
def test_what_changes_the_meaning_of_a_sample_id_changes_the_digest(change: str, tmp_path: Path) -> None:
    source = _letters(tmp_path / "a", "a", 30)
    other = _letters(tmp_path / "b", "b", 30)

    def digest(**changed: Any) -> str:
        weight, context = changed.pop("weight", 1.0), changed.pop("context", 16)
        sources = (source, DataSourceSpec(uri=other.uri, weight=weight))
        return open_data(
            _spec(TrainDataSpec(sources=sources, **changed), context=context), cache_dir=tmp_path / "c"
        ).digest

    values = {"context": 32, "packing": "documents", "mode": "streaming", "weight": 2.0}
    assert digest() == digest()
    assert digest(**{change: values[change]}) != digest()


def test_a_corpus_without_a_sample_is_named(tmp_path: Path) -> None:
    source = _letters(tmp_path / "a", "a", 30)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.jsonl").write_text('{"text": "a"}\n')
    sources = (source, DataSourceSpec(uri=str(tmp_path / "b"), name="tiny"))
    for packing, expected in (("stream", "at least 17 tokens"), ("pad", "a document of at least two tokens")):
        with pytest.raises(DataError, match=rf"expected {expected} .*in the training text of tiny, found 1"):
            open_data(_spec(TrainDataSpec(sources=sources, packing=packing)), cache_dir=tmp_path / "cache")


def test_a_missing_source_is_named_with_its_field(tmp_path: Path) -> None:
    sources = (_letters(tmp_path / "a", "a", 30), DataSourceSpec(uri=str(tmp_path / "none"), format="jsonl"))
    with pytest.raises(DataError, match=r"expected jsonl files at .*/none, found nothing there") as caught:
        open_data(_spec(TrainDataSpec(sources=sources)), cache_dir=tmp_path / "cache")
    assert "spec.train.data.sources[1].uri" in caught.value.hint


@pytest.fixture
def tokenizer_file(tmp_path: Path) -> Path:
    """A word-level tokenizer that adds special tokens, cuts and pads, if it is let."""
    inner = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.train_from_iterator(["one two three"], trainers.WordLevelTrainer(special_tokens=["[UNK]", "[BOS]"]))
    inner.post_processor = processors.TemplateProcessing(single="[BOS] $A", special_tokens=[("[BOS]", 1)])
    inner.enable_truncation(2)
    inner.enable_padding(length=9)
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    inner.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


@pytest.mark.parametrize("as_folder", [False, True])
def test_a_tokenizer_of_ones_own(as_folder: bool, tokenizer_file: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "a.jsonl").write_text(json.dumps({"text": "one two three four"}) + "\n")
    path = str(tokenizer_file.parent if as_folder else tokenizer_file)
    for vocab_size, expected in ((0, 5), (64, 64)):
        spec = _spec(
            TrainDataSpec(uri=str(corpus), packing="pad", hold_out_every=0),
            tokenizer=TokenizerSpec(kind="file", path=path, vocab_size=vocab_size),
        )
        data = open_data(replace(spec, eval=EvalSpec(every=0)), cache_dir=tmp_path / "cache")
        assert data.tokenizer.vocab_size == expected
        batch = data.train.batch((0,))
        words = {word: Tokenizer.from_file(str(tokenizer_file)).token_to_id(word) for word in ("one", "two", "three")}
        assert batch.ids[0, :3].tolist() == [words["one"], words["two"], words["three"]]
        assert batch.targets[0, :4].tolist() == [words["two"], words["three"], 0, IGNORED]


def test_a_vocabulary_that_is_too_small_is_refused(tokenizer_file: Path, tmp_path: Path) -> None:
    _letters(tmp_path / "a", "a", 30)
    tokenizer = TokenizerSpec(kind="file", path=str(tokenizer_file), vocab_size=4)
    with pytest.raises(SpecError, match=r"spec.train.tokenizer.vocabSize: expected at least 5, .*found 4"):
        open_data(_spec(TrainDataSpec(uri=str(tmp_path / "a")), tokenizer=tokenizer), cache_dir=tmp_path / "c")


@pytest.mark.parametrize(
    ("content", "match"),
    [(None, "expected a tokenizer at .*FileNotFoundError"), ("{}", "expected a tokenizer of the `tokenizers` library")],
)
def test_a_tokenizer_that_is_none_is_named(content: str | None, match: str, tmp_path: Path) -> None:
    _letters(tmp_path / "a", "a", 30)
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_text(content)
    spec = _spec(TrainDataSpec(uri=str(tmp_path / "a")), tokenizer=TokenizerSpec(kind="file", path=str(path)))
    with pytest.raises(DataError, match=match):
        open_data(spec, cache_dir=tmp_path / "cache")


def test_bpe_has_nothing_to_learn_from_tokens(tmp_path: Path) -> None:
    write_corpus(tmp_path / "tokens", "tokens", documents(random.Random(0), 30))
    spec = _spec(TrainDataSpec(uri=str(tmp_path / "tokens")), tokenizer=TokenizerSpec(kind="bpe", vocab_size=300))
    with pytest.raises(DataError, match=r"expected text to train a tokenizer on in .*, found none"):
        open_data(spec, cache_dir=tmp_path / "cache")
