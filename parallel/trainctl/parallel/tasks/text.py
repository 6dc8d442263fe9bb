"""The data of the built-in tasks: rows of tokens out of ``spec.train.data``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trainctl.core.records.train_spec import TrainSpec
from trainctl.parallel.data.corrupt import Skipped
from trainctl.parallel.data.dataset import TokenDataset
from trainctl.parallel.data.open_data import open_data
from trainctl.parallel.data.tokenizer import tokenizer_config


@dataclass(frozen=True, slots=True, kw_only=True)
class TextData:
    """What a model of text trains on.

    Attributes:
        train: samples of ``spec.train.model.context`` tokens; its batches are ``data.batch.Batch``.
        held_out: as ``train``, for evaluation; None if the job does not evaluate.
        vocab_size: ids are less than this.
        artifacts: ``tokenizer.json`` and ``tokenizer_config.json``, for an export.
        digest: equal on two nodes if and only if they train on the same data.
        skipped: corrupt records that were left out.
    """

    train: TokenDataset
    held_out: TokenDataset | None
    vocab_size: int
    artifacts: Mapping[str, bytes]
    digest: str
    skipped: Skipped


def open_text(spec: TrainSpec, cache_dir: Path) -> TextData:
    """The data as ``spec.train`` describes it, out of the node's cache; made now if it is not there.

    Raises:
        DataError: the data is missing or unusable.
        SpecError: the tokenizer's settings are impossible.
    """
    data = open_data(spec, cache_dir=cache_dir)
    return TextData(
        train=data.train,
        held_out=data.held_out,
        vocab_size=data.tokenizer.vocab_size,
        artifacts={
            "tokenizer.json": data.tokenizer.to_json().encode(),
            "tokenizer_config.json": json.dumps(tokenizer_config(spec.model.context), indent=2).encode(),
        },
        digest=data.digest,
        skipped=data.skipped,
    )
