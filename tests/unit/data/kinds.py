"""Corpora of every format, with the documents that are in them."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from trainctl.parallel.data.formats.tokens import write_shard

FORMATS = ("text", "text.gz", "jsonl", "jsonl.gz", "parquet", "tokens")
SEPARATOR = 255


def documents(drawn: random.Random, count: int, *, longest: int = 400) -> list[str]:
    """Texts of one line and more, some with characters of several bytes; none is empty."""
    words = ["alpha", "beta", "gamma", "dëlta", "zeta\n", "η", "0x1f", "\N{SNOWMAN}"]
    texts = []
    for _ in range(count):
        length, text = drawn.randint(3, longest), ""
        while len(text) < length:
            text += drawn.choice(words) + " "
        texts.append(text)
    return texts


def write_corpus(folder: Path, kind: str, texts: list[str], *, files: int = 2) -> None:
    """``texts`` in their order, in so many files (text: a file each) of the kind."""
    folder.mkdir(parents=True, exist_ok=True)
    if kind.startswith("text"):
        for number, text in enumerate(texts):
            _write(folder / f"{number:05}.txt", text.encode(), packed=kind.endswith(".gz"))
        return
    size = -(-len(texts) // files)
    for number in range(files):
        part = texts[number * size : (number + 1) * size]
        path = folder / f"{number}.{kind.removesuffix('.gz')}"
        if kind.startswith("jsonl"):
            lines = "".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(part))
            _write(path, lines.encode(), packed=kind.endswith(".gz"))
        elif kind == "parquet":
            pq.write_table(pa.table({"id": range(len(part)), "text": part}), path, row_group_size=7)
        else:
            ids = np.concatenate([np.frombuffer(text.encode() + bytes([SEPARATOR]), dtype=np.uint8) for text in part])
            write_shard(path.with_suffix(".bin"), ids, vocab_size=256, separator=SEPARATOR)


def _write(path: Path, data: bytes, *, packed: bool) -> None:
    if packed:
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(data))
    else:
        path.write_bytes(data)
