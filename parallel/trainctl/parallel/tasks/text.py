"""The data of the built-in tasks: rows of tokens out of ``spec.train.data``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trainctl.core.records.train_spec import TrainSpec
from trainctl.parallel.data.dataset import TextDataset
from trainctl.parallel.data.token_cache import open_tokens
from trainctl.parallel.data.tokenizer import tokenizer_config
from trainctl.parallel.tasks.task import Dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class TextData:
    """What a model of text trains on.

    Attributes:
        train: samples of ``spec.train.model.context`` tokens; its batches are ``data.batch.Batch``.
        held_out: as ``train``, for evaluation; None if the job does not evaluate.
        vocab_size: ids are less than this.
        artifacts: ``tokenizer.json`` and ``tokenizer_config.json``, for an export.
        digest: equal on two nodes if and only if they train on the same data.
    """

    train: Dataset
    held_out: Dataset | None
    vocab_size: int
    artifacts: Mapping[str, bytes]
    digest: str


def open_text(spec: TrainSpec, cache_dir: Path) -> TextData:
    """The data as ``spec.train`` describes it, out of the node's cache; made now if it is not there.

    Raises:
        DataError: the data is missing or unusable.
        SpecError: the tokenizer's settings are impossible.
    """
    tokens = open_tokens(spec.data, spec.tokenizer, cache_dir=cache_dir)
    context = spec.model.context
    held_out = TextDataset(tokens.held_out, context=context, name="the held-out text") if spec.eval.every else None
    return TextData(
        train=TextDataset(tokens.train, context=context, name=f"the training text of {spec.data.uri}"),
        held_out=held_out,
        vocab_size=tokens.tokenizer.vocab_size,
        artifacts={
            "tokenizer.json": tokens.tokenizer.to_json().encode(),
            "tokenizer_config.json": json.dumps(tokenizer_config(context), indent=2).encode(),
        },
        digest=tokens.digest,
    )
