"""Without it streaming could train on other text than the cache does, miss a changed file, or fill the memory."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

from trainctl.core.errors import DataError
from trainctl.core.records.train_spec import (
    BatchSpec,
    EvalSpec,
    ModelSpec,
    TokenizerSpec,
    TrainDataSpec,
    TrainSpec,
)
from trainctl.parallel.data import stream_cache, stream_rows
from trainctl.parallel.data.batch import IGNORED
from trainctl.parallel.data.formats import jsonl, parquet, text
from trainctl.parallel.data.open_data import Data, open_data
from trainctl.parallel.data.rows import Rows
from unit.data.kinds import FORMATS, documents, write_corpus


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (text, jsonl):
        monkeypatch.setattr(module, "group_bytes_of_stream", lambda _: 3000)
    monkeypatch.setattr(text, "PIECE_BYTES", 1000)
    monkeypatch.setattr(stream_cache, "_GROUP_BYTES_PER_POSITION", 1)
    monkeypatch.setattr(parquet, "GROUP_BYTES", 3000)
    monkeypatch.setattr("trainctl.parallel.data.formats.tokens._PIECE_TOKENS", 1500)


def _open(tmp_path: Path, kind: str, *, packing: str = "stream", mode: str = "streaming", bpe: bool = False) -> Data:
    data = TrainDataSpec(uri=str(tmp_path / kind), packing=packing, mode=mode, hold_out_every=7)
    tokenizer = TokenizerSpec(kind="bpe", vocab_size=300) if bpe else TokenizerSpec()
    spec = TrainSpec(data=data, tokenizer=tokenizer, model=ModelSpec(context=32), eval=EvalSpec(every=1))
    return open_data(spec, cache_dir=tmp_path / "cache")


def _targets(data: Data) -> Counter[int]:
    batch = data.train.batch(range(data.train.num_samples))
    return Counter(batch.targets[batch.targets != IGNORED].tolist())


@pytest.mark.usefixtures("small_groups")
@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("packing", ["stream", "documents", "pad"])
def test_streaming_trains_on_the_same_text_but_for_the_ends_of_groups(kind: str, packing: str, tmp_path: Path) -> None:
    write_corpus(tmp_path / kind, kind, documents(random.Random(kind), 120))
    cached, streamed = (_targets(_open(tmp_path, kind, packing=packing, mode=mode)) for mode in ("cached", "streaming"))
    share = sum((cached & streamed).values()) / sum(cached.values())
    assert share == 1.0 if packing == "pad" else share > 0.93
    assert sum((streamed - cached).values()) <= (0 if packing == "pad" else 0.02 * sum(cached.values()))


@pytest.mark.usefixtures("small_groups")
@pytest.mark.parametrize("kind", FORMATS)
def test_a_sample_is_the_same_in_whatever_order_and_memory_it_is_asked_for(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_corpus(tmp_path / kind, kind, documents(random.Random(kind), 100))
    bpe = kind != "tokens"
    data = _open(tmp_path, kind, packing="documents", bpe=bpe)
    ids = list(range(data.train.num_samples))
    expected = [data.train.batch((i,)) for i in ids]
    random.Random(1).shuffle(ids)
    monkeypatch.setattr(stream_rows, "KEPT_BYTES", 1)
    again = _open(tmp_path, kind, packing="documents", bpe=bpe)
    assert again.digest == data.digest
    for sample_id in ids:
        batch = again.train.batch((sample_id,))
        assert torch.equal(batch.ids, expected[sample_id].ids)
        assert torch.equal(batch.targets, expected[sample_id].targets)


@pytest.mark.usefixtures("small_groups")
def test_a_batch_of_one_rank_opens_few_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_corpus(tmp_path / "jsonl", "jsonl", documents(random.Random(0), 3000, longest=900))
    data = _open(tmp_path, "jsonl")
    opened: list[int] = []
    read = stream_rows.GroupReader.rows

    def noted(self: stream_rows.GroupReader, group: int) -> tuple[Rows, int]:
        opened.append(group)
        return read(self, group)

    monkeypatch.setattr(stream_rows.GroupReader, "rows", noted)
    batch = BatchSpec(sequences=16, micro_batches=4)
    order = data.train.order(seed=1, batch=batch)
    steps = 200
    for step in range(steps):
        data.train.batch(order.ids(16 * step, 4))  # the share of the first of four ranks
    groups_worth = steps * 4 * 32 / 3000
    assert len(opened) < 3 * groups_worth + 8
    assert len(opened) == len(set(opened))


def test_a_file_that_changed_under_the_index_is_noticed_or_named(tmp_path: Path) -> None:
    write_corpus(tmp_path / "jsonl", "jsonl", documents(random.Random(0), 50))
    data = _open(tmp_path, "jsonl")
    (tmp_path / "jsonl" / "0.jsonl").unlink()
    with pytest.raises(DataError, match=r"expected a readable file at .*0\.jsonl .*FileNotFoundError"):
        data.train.batch(range(data.train.num_samples))


@pytest.mark.parametrize("kind", ["text", "jsonl"])
def test_a_text_that_was_replaced_under_the_index_is_not_trained_on(kind: str, tmp_path: Path) -> None:
    texts = documents(random.Random(1), 40)
    write_corpus(tmp_path / kind, kind, texts)
    data = _open(tmp_path, kind)
    write_corpus(tmp_path / kind, kind, [text.swapcase() for text in texts])
    with pytest.raises(DataError, match="had when the run began, found another one") as caught:
        data.train.batch(range(data.train.num_samples))
    assert str(tmp_path / kind) in str(caught.value)


def test_text_that_is_appended_to_a_file_in_use_is_not_seen(tmp_path: Path) -> None:
    write_corpus(tmp_path / "jsonl", "jsonl", documents(random.Random(2), 40))
    before = _targets(_open(tmp_path, "jsonl"))
    data = _open(tmp_path, "jsonl")
    for path in (tmp_path / "jsonl").iterdir():
        with path.open("a") as file:
            file.write('\n{"text": "later"}\n')
    assert _targets(data) == before


def test_nothing_but_a_small_index_is_written(tmp_path: Path) -> None:
    write_corpus(tmp_path / "text", "text", ["word " * 200_000])
    _open(tmp_path, "text")
    written = sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*") if path.is_file())
    assert written < 3000


_BOUNDED = """
import random, sys
from pathlib import Path
from trainctl.core.records.train_spec import BatchSpec, EvalSpec, ModelSpec, TrainDataSpec, TrainSpec
from trainctl.parallel.data.open_data import open_data

def kib(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))

folder, cache, packing = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
spec = TrainSpec(
    data=TrainDataSpec(uri=str(folder), mode="streaming", packing=packing), model=ModelSpec(context=512),
    eval=EvalSpec(every=0),
)
Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
before = kib("VmRSS:")
data = open_data(spec, cache_dir=cache)
order = data.train.order(seed=1, batch=BatchSpec(sequences=16, micro_batches=4))
for step in range(400):
    data.train.batch(order.ids(16 * step, 16))
print(kib("VmHWM:") - before, data.train.num_samples)
"""


@pytest.mark.parametrize("packing", ["stream", "documents"])
def test_memory_is_bounded_on_a_corpus_that_is_larger(packing: str, tmp_path: Path) -> None:
    """256 MB of records, 128 MiB allowed beyond what the imports take."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    line = '{"text": "' + "some words of a long corpus " * 140 + '"}\n'
    with (folder / "big.jsonl").open("w") as file:
        for _ in range(256_000_000 // len(line) // 100):
            file.write(line * 100)
    command = [sys.executable, "-c", _BOUNDED, str(folder), str(tmp_path / "cache"), packing]
    out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=55).stdout
    used_kib, samples = map(int, out.split()[-2:])
    assert samples > 400_000
    assert used_kib < 128 << 10
