"""Every kind of data gives the same samples after kills and resumes, and on every number of workers.

Without it a job could skip or double samples after a failure or a resize.
"""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest

from trainctl.core.records.train_spec import (
    BatchSpec,
    DataSourceSpec,
    EvalSpec,
    ModelSpec,
    TokenizerSpec,
    TrainDataSpec,
    TrainSpec,
)
from trainctl.parallel.data import stream_cache, stream_rows
from trainctl.parallel.data.batch import Batch
from trainctl.parallel.data.dataset import TokenDataset
from trainctl.parallel.data.formats import jsonl, parquet, text
from trainctl.parallel.data.open_data import open_data
from trainctl.parallel.data.prefetch import Prefetcher
from trainctl.parallel.plan.micro_batches import deal, micro_batches_of_step
from unit.data.kinds import FORMATS, documents, write_corpus

BATCH = BatchSpec(sequences=8, micro_batches=4)
STEPS = 30


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (text, jsonl):
        monkeypatch.setattr(module, "group_bytes_of_stream", lambda _: 2000)
    monkeypatch.setattr(stream_cache, "_GROUP_BYTES_PER_POSITION", 1)
    monkeypatch.setattr(parquet, "GROUP_BYTES", 2000)
    monkeypatch.setattr(stream_rows, "KEPT_BYTES", 1 << 14)


def _digest(batch: Batch) -> str:
    hasher = hashlib.blake2b(batch.ids.numpy().tobytes() + batch.targets.numpy().tobytes(), digest_size=8)
    if batch.documents is not None:
        hasher.update(batch.documents.numpy().tobytes())
    return hasher.hexdigest()


def _undisturbed(dataset: TokenDataset) -> list[list[str]]:
    """Digests of the micro-batches of each step, on one worker and without prefetch."""
    order, steps = dataset.order(seed=5, batch=BATCH), []
    for step in range(STEPS):
        parts = micro_batches_of_step(order, BATCH, step=step + 1, cursor=step * BATCH.sequences, seed=5)
        steps.append([_digest(dataset.batch(part.sample_ids)) for part in parts])
    return steps


def _disturbed(spec: TrainSpec, cache: Path, drawn: random.Random) -> list[list[str]]:
    """The same with kills: fewer and more workers, new processes (here: newly opened data), open steps repeated."""
    committed: list[list[str]] = []
    while len(committed) < STEPS:
        world = drawn.randint(1, 4)
        workers = [open_data(spec, cache_dir=cache).train for _ in range(world)]
        prefetchers = [Prefetcher(worker.batch, depth=drawn.randint(0, 3)) for worker in workers]
        orders = [worker.order(seed=5, batch=BATCH) for worker in workers]
        for step in range(len(committed), min(STEPS, len(committed) + drawn.randint(1, 9))):
            found: list[str] = []
            for rank, share in enumerate(deal(BATCH.micro_batches, world)):
                parts = [
                    part.sample_ids
                    for later in (step, step + 1)
                    for part in micro_batches_of_step(
                        orders[rank], BATCH, step=later + 1, cursor=later * BATCH.sequences, seed=5
                    )[share.start : share.stop]
                ]
                for number in range(len(share)):
                    found.append(_digest(prefetchers[rank].take(parts[number], parts[number + 1 :])))
            if drawn.random() < 0.2:  # a worker died in this step: nobody commits it
                break
            committed.append(found)
        for prefetcher in prefetchers:
            prefetcher.close()
    return committed


def _check(data: TrainDataSpec, tmp_path: Path, *, tokenizer: TokenizerSpec, seed: object) -> None:
    spec = TrainSpec(data=data, tokenizer=tokenizer, model=ModelSpec(context=24), eval=EvalSpec(every=0))
    dataset = open_data(spec, cache_dir=tmp_path / "cache").train
    expected = _undisturbed(dataset)
    assert len({digest for step in expected for digest in step}) > STEPS
    assert _disturbed(spec, tmp_path / "cache", random.Random(str(seed))) == expected


@pytest.mark.parametrize("mode", ["cached", "streaming"])
@pytest.mark.parametrize("packing", ["stream", "documents", "pad"])
@pytest.mark.parametrize("kind", FORMATS)
def test_one_source(kind: str, packing: str, mode: str, tmp_path: Path) -> None:
    write_corpus(tmp_path / kind, kind, documents(random.Random(kind), 80))
    data = TrainDataSpec(uri=str(tmp_path / kind), packing=packing, mode=mode)
    _check(data, tmp_path, tokenizer=TokenizerSpec(), seed=(kind, packing, mode))


@pytest.mark.parametrize("mode", ["cached", "streaming"])
@pytest.mark.parametrize("packing", ["stream", "documents", "pad"])
def test_a_mixture(packing: str, mode: str, tmp_path: Path) -> None:
    kinds = ("jsonl", "parquet", "text.gz")
    for kind in kinds:
        write_corpus(tmp_path / kind, kind, documents(random.Random(kind), 40))
    weights = (0.55, 0.3, 0.15)
    sources = tuple(
        DataSourceSpec(uri=str(tmp_path / kind), weight=weight) for kind, weight in zip(kinds, weights, strict=True)
    )
    data = TrainDataSpec(sources=sources, packing=packing, mode=mode)
    _check(data, tmp_path, tokenizer=TokenizerSpec(kind="bpe", vocab_size=280), seed=(packing, mode))
