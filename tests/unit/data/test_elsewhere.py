"""Corpora that lie on no local file system: every format that fsspec has to open, cached and streaming.

Without it a corpus on object storage could be read differently than the same one on a disk.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec  # type: ignore[import-untyped]
import pytest
import torch

from trainctl.core.errors import DataError
from trainctl.core.records.train_spec import EvalSpec, ModelSpec, TrainDataSpec, TrainSpec
from trainctl.parallel.data.dataset import TokenDataset
from trainctl.parallel.data.open_data import Data, open_data
from unit.data.kinds import FORMATS, documents, write_corpus

MEMORY = fsspec.filesystem("memory")


@pytest.fixture
def bucket() -> Iterator[str]:
    """An empty folder of its own in fsspec's memory."""
    uri = f"memory://{uuid.uuid4()}"
    yield uri
    if MEMORY.exists(uri):
        MEMORY.rm(uri, recursive=True)


def upload(folder: Path, uri: str) -> None:
    for path in folder.iterdir():
        MEMORY.pipe(f"{uri}/{path.name}", path.read_bytes())


def opened(uri: str, mode: str, cache_dir: Path, *, packing: str = "documents") -> Data:
    data = TrainDataSpec(uri=uri, mode=mode, packing=packing, hold_out_every=5)
    return open_data(TrainSpec(data=data, model=ModelSpec(context=32), eval=EvalSpec(every=1)), cache_dir=cache_dir)


def assert_same(one: TokenDataset, other: TokenDataset) -> None:
    assert one.num_samples == other.num_samples > 0
    mine, theirs = (dataset.batch(range(one.num_samples)) for dataset in (one, other))
    assert torch.equal(mine.ids, theirs.ids)
    assert torch.equal(mine.targets, theirs.targets)


@pytest.mark.parametrize("mode", ["cached", "streaming"])
@pytest.mark.parametrize("packing", ["stream", "documents"])
@pytest.mark.parametrize("kind", FORMATS)
def test_a_corpus_elsewhere_is_the_same_as_on_a_disk(
    kind: str, packing: str, mode: str, tmp_path: Path, bucket: str
) -> None:
    write_corpus(tmp_path / "disk", kind, documents(random.Random(kind + mode), 80), files=3)
    upload(tmp_path / "disk", bucket)
    there = opened(bucket, mode, tmp_path / "cache-there", packing=packing)
    here = opened(str(tmp_path / "disk"), mode, tmp_path / "cache-here", packing=packing)
    assert_same(there.train, here.train)
    assert there.held_out is not None
    assert here.held_out is not None
    assert_same(there.held_out, here.held_out)
    again = opened(bucket, mode, tmp_path / "cache-again", packing=packing)
    assert again.digest == there.digest, "another node sees the same data"


@pytest.mark.parametrize("mode", ["cached", "streaming"])
@pytest.mark.parametrize("kind", ["jsonl", "parquet", "tokens"])
def test_what_is_elsewhere_is_read_and_not_copied_where_it_streams(
    kind: str, mode: str, tmp_path: Path, bucket: str
) -> None:
    write_corpus(tmp_path / "disk", kind, documents(random.Random(kind), 80))
    upload(tmp_path / "disk", bucket)
    data = opened(bucket, mode, tmp_path / "cache")
    MEMORY.rm(bucket, recursive=True)
    if mode == "cached":
        assert data.train.batch(range(data.train.num_samples)).num_targets > 0
        return
    with pytest.raises(DataError, match=r"expected a readable file at .*FileNotFoundError"):
        data.train.batch(range(data.train.num_samples))


@pytest.mark.parametrize("mode", ["cached", "streaming"])
@pytest.mark.parametrize("kind", ["jsonl", "parquet", "tokens"])
def test_a_file_elsewhere_that_is_cut_off_is_named(kind: str, mode: str, tmp_path: Path, bucket: str) -> None:
    write_corpus(tmp_path / "disk", kind, documents(random.Random(kind), 80), files=1)
    upload(tmp_path / "disk", bucket)
    (victim,) = (path for path in MEMORY.ls(bucket, detail=False) if not path.endswith(".json"))
    content = MEMORY.cat_file(victim)
    MEMORY.pipe(victim, content[: len(content) // 2 | 1])
    with pytest.raises(DataError) as caught:
        opened(bucket, mode, tmp_path / "cache")
    assert victim.rsplit("/", 1)[1] in str(caught.value)


@pytest.mark.parametrize("mode", ["cached", "streaming"])
def test_nothing_elsewhere_is_named(mode: str, tmp_path: Path, bucket: str) -> None:
    with pytest.raises(DataError, match=f"{bucket}.*, found nothing there"):
        opened(bucket, mode, tmp_path)
