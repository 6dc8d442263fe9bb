"""``make bench-data``: tokens per second of the loader, and of reading the same bytes plainly, in interleaved pairs.

For every format, cached and streaming: one pass over a corpus in the order of training, in batches, without a model;
and the same files (cached: the token files) read from front to back in blocks of a megabyte. The first pair of each is
dropped. For the cached ones also a loop that takes the same token files window by window, and the time to the first
batch at a late cursor. Prints a table and, last, one JSON line.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import numpy as np
import torch

from trainctl.core.records.train_spec import BatchSpec, EvalSpec, ModelSpec, TokenizerSpec, TrainDataSpec, TrainSpec
from trainctl.parallel.data.dataset import TokenDataset
from trainctl.parallel.data.open_data import open_data
from unit.data.kinds import write_corpus

BATCH = BatchSpec(sequences=16, micro_batches=4)
BLOCK_BYTES = 1 << 20
LATE_EPOCHS = 3.9
BYTES = TokenizerSpec()


@dataclass
class Kind:
    """One way of keeping and reading the corpus, and what was measured of it."""

    format: str
    mode: str
    packing: str = "stream"
    tokenizer: TokenizerSpec = BYTES
    loader: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    resume_s: list[float] = field(default_factory=list)
    plain: list[float] = field(default_factory=list)

    @property
    def name(self) -> str:
        """For table and JSON."""
        return f"{self.format}/{self.mode}/{self.packing}/{self.tokenizer.kind}"

    def spec(self, folder: Path, context: int) -> TrainSpec:
        """A job on it."""
        uri = str(folder / "corpus" / self.format)
        data = TrainDataSpec(uri=uri, mode=self.mode, packing=self.packing)
        model, never = ModelSpec(context=context), EvalSpec(every=0)
        return TrainSpec(data=data, tokenizer=self.tokenizer, model=model, eval=never)


def kinds() -> list[Kind]:
    bpe = TokenizerSpec(kind="bpe", vocab_size=1000)
    formats = ("text", "jsonl", "jsonl.gz", "parquet", "tokens")
    plain = [Kind(name, mode) for name in formats for mode in ("cached", "streaming")]
    packed = [Kind("jsonl", mode, packing="documents") for mode in ("cached", "streaming")]
    return [*plain, *packed, Kind("jsonl", "cached", tokenizer=bpe), Kind("jsonl", "streaming", tokenizer=bpe)]


def corpus(size_bytes: int) -> list[str]:
    """The running Python's standard library, file by file, up to about this size."""
    texts: list[str] = []
    for path in sorted(Path(json.__file__).parents[1].rglob("*.py")):
        if size_bytes > 0 and "site-packages" not in path.parts and path.stat().st_size > 1:
            texts.append(path.read_text(errors="replace"))
            size_bytes -= path.stat().st_size
    return texts


def load(dataset: TokenDataset) -> tuple[int, float]:
    """Targets of one pass in the order of training, and its seconds."""
    order, targets = dataset.order(seed=1, batch=BATCH), 0
    began_s = time.perf_counter()
    for position in range(0, dataset.num_samples - BATCH.sequences + 1, BATCH.sequences):
        targets += dataset.batch(order.ids(position, BATCH.sequences)).num_targets
    return targets, time.perf_counter() - began_s


def read(files: Sequence[Path]) -> float:
    """Seconds to read the files from front to back."""
    began_s = time.perf_counter()
    for path in files:
        with path.open("rb", buffering=0) as file:
            while file.read(BLOCK_BYTES):
                pass
    return time.perf_counter() - began_s


def plain_loop(files: Sequence[Path], context: int) -> float:
    """Tokens per second of a loop that takes the windows of token files as they come, without order or any check."""
    tokens, began_s = 0, time.perf_counter()
    for path in files:
        ids = np.fromfile(path, dtype="<u2")
        step = BATCH.sequences * context
        for start in range(0, len(ids) - step, step):
            rows = torch.from_numpy(ids[start : start + step].astype(np.int64)).view(BATCH.sequences, context)
            tokens += rows.numel()
    return tokens / (time.perf_counter() - began_s)


def resume(spec: TrainSpec, cache: Path) -> float:
    """Seconds from nothing open to the first batch at a late cursor; the cache is there."""
    began_s = time.perf_counter()
    dataset = open_data(spec, cache_dir=cache).train
    order = dataset.order(seed=1, batch=BATCH)
    dataset.batch(order.ids(int(LATE_EPOCHS * dataset.num_samples), BATCH.sequences))
    return time.perf_counter() - began_s


def measure(kind: Kind, folder: Path, *, pairs: int, context: int) -> None:
    cache = folder / "cache" / kind.name.replace("/", "-")
    spec = kind.spec(folder, context)
    open_data(spec, cache_dir=cache)
    stored = [path for path in (folder / "corpus" / kind.format).iterdir() if not path.name.endswith(".bin.json")]
    files = stored if kind.mode == "streaming" else list((cache / "tokens").glob("*/train.bin"))
    for pair in range(pairs + 1):
        raw_s = read(files)
        targets, loader_s = load(open_data(spec, cache_dir=cache).train)  # opened anew: nothing is kept in memory
        if pair > 0:
            kind.loader.append(targets / loader_s)
            kind.ratios.append(raw_s / loader_s)
            kind.resume_s.append(resume(spec, cache))
            if kind.mode == "cached":
                kind.plain.append(targets / loader_s / plain_loop(files, context))
    low, high = min(kind.ratios), max(kind.ratios)
    print(
        f"{kind.name:32} {statistics.median(kind.loader) / 1e6:8.2f} Mtokens/s   "
        f"vs raw read {statistics.median(kind.ratios):6.4f} ({low:.4f} to {high:.4f})   "
        f"late cursor {1000 * statistics.median(kind.resume_s):6.1f} ms",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--mib", type=int, default=24, help="size of the corpus")
    parser.add_argument("--context", type=int, default=1024)
    options = parser.parse_args()
    measured = kinds()
    texts = corpus(options.mib << 20)
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        folder = Path(temporary)
        for name in sorted({kind.format for kind in measured}):
            write_corpus(folder / "corpus" / name, name, texts, files=8)
        for kind in measured:
            measure(kind, folder, pairs=options.pairs, context=options.context)
    by_name = {kind.name: kind for kind in measured}
    headline = by_name["tokens/cached/stream/bytes"]
    print(
        json.dumps(
            {
                "loader_vs_raw_read": round(statistics.median(headline.ratios), 4),
                "loader_vs_raw_read_min": round(min(headline.ratios), 4),
                "loader_vs_raw_read_max": round(max(headline.ratios), 4),
                "loader_vs_plain_loop": round(statistics.median(headline.plain), 4),
                "exact_resume_s": round(statistics.median(headline.resume_s), 4),
                "exact_resume_s_streaming": round(
                    statistics.median(by_name["jsonl/streaming/stream/bytes"].resume_s), 4
                ),
                "tokens_per_s": {kind.name: round(statistics.median(kind.loader)) for kind in measured},
                "vs_raw_read": {kind.name: round(statistics.median(kind.ratios), 5) for kind in measured},
                "resume_s": {kind.name: round(statistics.median(kind.resume_s), 4) for kind in measured},
                "pairs": options.pairs,
                "corpus_bytes": sum(len(text.encode()) for text in texts),
                "context": options.context,
                "tokenizers": version("tokenizers"),
                "pyarrow": version("pyarrow"),
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
