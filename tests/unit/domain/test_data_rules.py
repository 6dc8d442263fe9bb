"""Without it a job file with impossible data settings would be accepted, or refused without naming the field."""

from __future__ import annotations

import pytest

from trainctl.controller.domain.spec.parse import parse_job
from trainctl.core.errors import Problem, SpecError
from trainctl.core.records.train_spec import TokenizerSpec
from trainctl.parallel.plan.data_rules import likely_vocabulary


def _problems(train: str) -> tuple[Problem, ...]:
    text = f"apiVersion: trainctl.dev/v1\nkind: TrainJob\nmetadata: {{name: a}}\nspec:\n  train:\n    {train}\n"
    try:
        parse_job(text, source="job.yaml")
    except SpecError as error:
        return error.problems
    return ()


@pytest.mark.parametrize(
    "train",
    [
        "data: {uri: /corpus, format: jsonl, field: body, packing: documents, mode: streaming, prefetch: 0}",
        "data: {sources: [{uri: /a, weight: 0.7}, {uri: /b, format: tokens, weight: 0.3, name: b}]}",
        "data: {corrupt: {policy: skip, maxRecords: 0}}",
        "tokenizer: {kind: file, path: /tokenizer.json}",
        "tokenizer: {kind: file, path: /tokenizer.json, vocabSize: 32000}",
        "tokenizer: {kind: bytes, vocabSize: 256}",
        "tokenizer: {kind: bpe, vocabSize: 257}",
    ],
)
def test_what_may_be_written(train: str) -> None:
    assert _problems(train) == ()


@pytest.mark.parametrize(
    ("train", "path", "part"),
    [
        ("data: {format: csv}", "spec.train.data.format", "auto or text or jsonl or parquet or tokens"),
        ("data: {field: ''}", "spec.train.data.field", "expected some text"),
        ("data: {packing: tight}", "spec.train.data.packing", "stream or documents or pad"),
        ("data: {mode: lazy}", "spec.train.data.mode", "cached or streaming"),
        ("data: {prefetch: -1}", "spec.train.data.prefetch", "0 to 1024 batches, found -1"),
        ("data: {corrupt: {policy: ignore}}", "spec.train.data.corrupt.policy", "fail or skip"),
        ("data: {corrupt: {maxRecords: -1}}", "spec.train.data.corrupt.maxRecords", "at least 0"),
        ("data: {uri: /a, sources: [{uri: /b}]}", "spec.train.data.uri", "belongs into each of sources"),
        ("data: {sources: [{uri: /a}, {uri: /b, weight: 0}]}", "spec.train.data.sources[1].weight", "greater than 0"),
        ("data: {sources: [{uri: /a}, {uri: ''}]}", "spec.train.data.sources[1].uri", "expected some text"),
        ("data: {sources: [{uri: /a, format: x}]}", "spec.train.data.sources[0].format", 'found "x"'),
        (
            "data: {sources: [{uri: /a, weight: 1.0e-6}, {uri: /b}]}",
            "spec.train.data.sources[0].weight",
            "a share of at least 1 in 65536, found 9.99999e-07",
        ),
        ("tokenizer: {kind: file}", "spec.train.tokenizer.path", "is required by kind file"),
        ("tokenizer: {kind: bpe, vocabSize: 300, path: /x}", "spec.train.tokenizer.path", "kind is bpe"),
        ("tokenizer: {kind: bpe}", "spec.train.tokenizer.vocabSize", "at least 257"),
    ],
)
def test_what_is_wrong_is_named(train: str, path: str, part: str) -> None:
    found = {problem.path: problem for problem in _problems(train)}
    assert part in found[path].message
    assert found[path].line == 6
    assert found[path].column > 5


def test_an_estimate_does_without_the_tokenizer() -> None:
    assert likely_vocabulary(TokenizerSpec()) == 256
    assert likely_vocabulary(TokenizerSpec(kind="file", path="x")) > 256
    assert likely_vocabulary(TokenizerSpec(kind="bpe", vocab_size=999)) == 999
