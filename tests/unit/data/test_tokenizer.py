"""Without it text could come back changed from its tokens, or nodes learn different vocabularies from one corpus."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from trainctl.core.records.train_spec import TokenizerSpec
from trainctl.parallel.data.tokenizer import (
    TextTokenizer,
    byte_tokenizer,
    tokenizer_config,
    tokenizer_from_json,
    train_bpe,
)
from trainctl.parallel.plan.data_rules import tokenizer_problems

TEXTS = ["def f(self):\n    return self.x\n" * 40, "the cat and the dog\tand the tree\r\n" * 40]
ODD_TEXT = "  leading, ütf-8 \U0001f600 \x00 tab\t\r\n  trailing   "
BYTES = byte_tokenizer()
BPE = train_bpe(TEXTS, vocab_size=280)


def _ids(tokenizer: TextTokenizer, text: str) -> list[int]:
    (ids,) = tokenizer.encode([text])
    return [int(i) for i in ids]


@given(st.text())
@settings(deadline=None)
def test_decoding_gives_back_the_text(text: str) -> None:
    for tokenizer in (BYTES, BPE):
        assert tokenizer.decode(_ids(tokenizer, text)) == text


def test_bytes_are_their_own_ids() -> None:
    assert _ids(BYTES, ODD_TEXT) == list(ODD_TEXT.encode())
    assert BYTES.vocab_size == 256


def test_bpe_merges_what_is_common() -> None:
    assert BPE.vocab_size == 280
    assert len(_ids(BPE, TEXTS[0])) < len(TEXTS[0]) / 2


def test_bpe_is_the_same_every_time() -> None:
    assert train_bpe(TEXTS, vocab_size=280).to_json() == BPE.to_json()


def test_a_small_text_gives_a_smaller_vocabulary() -> None:
    assert 256 <= train_bpe(["ab ab"], vocab_size=5000).vocab_size < 270


@pytest.mark.parametrize("tokenizer", [BYTES, BPE])
def test_json_round_trip(tokenizer: TextTokenizer) -> None:
    again = tokenizer_from_json(tokenizer.to_json(), kind=tokenizer.kind)
    assert _ids(again, ODD_TEXT) == _ids(tokenizer, ODD_TEXT)
    assert again.vocab_size == tokenizer.vocab_size


@pytest.mark.parametrize("tokenizer", [BYTES, BPE])
def test_transformers_loads_it(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(tokenizer.to_json())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(tokenizer_config(128)))
    for loaded in (PreTrainedTokenizerFast.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)):
        assert loaded(ODD_TEXT)["input_ids"] == _ids(tokenizer, ODD_TEXT)
        assert loaded.decode(_ids(tokenizer, ODD_TEXT)) == ODD_TEXT
        assert loaded.model_max_length == 128


def test_cut_characters_are_replaced() -> None:
    assert BYTES.decode(np.frombuffer("ü".encode()[:1], dtype=np.uint8).tolist()) == "\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        (TokenizerSpec(kind="words"), "spec.train.tokenizer.kind"),
        (TokenizerSpec(kind="bpe"), "spec.train.tokenizer.vocabSize"),
        (TokenizerSpec(kind="bpe", vocab_size=256), "spec.train.tokenizer.vocabSize"),
        (TokenizerSpec(vocab_size=300), "spec.train.tokenizer.vocabSize"),
        (TokenizerSpec(kind="file"), "spec.train.tokenizer.path"),
        (TokenizerSpec(kind="file", path="x", vocab_size=-1), "spec.train.tokenizer.vocabSize"),
        (TokenizerSpec(path="x"), "spec.train.tokenizer.path"),
    ],
)
def test_impossible_settings_are_problems(spec: TokenizerSpec, path: str) -> None:
    assert [problem.path for problem in tokenizer_problems(spec)] == [path]
    assert not tokenizer_problems(TokenizerSpec(kind="bpe", vocab_size=257))
