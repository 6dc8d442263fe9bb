"""Without it one broken record could end a job that allows some, or nodes skip different ones and train apart."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainctl.core.errors import DataError
from trainctl.core.records.train_spec import CorruptSpec, DataSourceSpec, EvalSpec, ModelSpec, TrainDataSpec, TrainSpec
from trainctl.parallel.data.formats.tokens import write_shard
from trainctl.parallel.data.open_data import Data, open_data
from unit.data.kinds import documents, write_corpus

SKIP = CorruptSpec(policy="skip", max_records=5)
MODES = pytest.mark.parametrize("mode", ["cached", "streaming"])


def _open(folder: Path, cache: Path, *, corrupt: CorruptSpec, mode: str = "cached", hold_out_every: int = 0) -> Data:
    data = TrainDataSpec(uri=str(folder), hold_out_every=hold_out_every, corrupt=corrupt, mode=mode)
    spec = TrainSpec(data=data, model=ModelSpec(context=16), eval=EvalSpec(every=0))
    return open_data(spec, cache_dir=cache)


def _lines(folder: Path, *bad: str) -> None:
    lines = [json.dumps({"text": text}) for text in documents(random.Random(0), 12)]
    for number, line in enumerate(bad):
        lines.insert(3 * number + 1, line)
    (folder / "a.jsonl").write_text("\n".join(lines))


def _truncated_gzip(folder: Path) -> None:
    lines = "".join(json.dumps({"text": text}) + "\n" for text in documents(random.Random(0), 2000))
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode())[:-4000])


def _damaged_parquet(folder: Path) -> None:
    path = folder / "a.parquet"
    texts = documents(random.Random(0), 300)
    pq.write_table(pa.table({"text": texts}), path, row_group_size=100, compression="snappy", use_dictionary=False)
    column = pq.ParquetFile(path).metadata.row_group(1).column(0)
    data = bytearray(path.read_bytes())
    start = column.data_page_offset + column.total_compressed_size // 2
    data[start : start + 200] = bytes(200)
    path.write_bytes(data)


def _null_in_parquet(folder: Path) -> None:
    pq.write_table(pa.table({"text": ["x" * 100, None, "y" * 100]}), folder / "a.parquet")


def _no_parquet(folder: Path) -> None:
    write_corpus(folder, "text", documents(random.Random(0), 5))
    (folder / "z.parquet").write_bytes(b"PAR1 this is none")


def _id_outside(folder: Path) -> None:
    write_shard(folder / "a.bin", np.arange(200), vocab_size=256)
    write_shard(folder / "b.bin", np.array([1, 2, 900, 3] * 50), vocab_size=1000)
    told = json.loads((folder / "b.bin.json").read_text())
    (folder / "b.bin.json").write_text(json.dumps(told | {"vocabSize": 256}))


def _short_shard(folder: Path) -> None:
    write_shard(folder / "a.bin", np.arange(200), vocab_size=256)
    (folder / "a.bin").write_bytes((folder / "a.bin").read_bytes()[:-21])


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "json": (
        lambda f: _lines(f, '{"text": "unfinished'),
        r"a\.jsonl, line 2, byte \d+: no JSON: Unterminated string .*\(character 9\)",
    ),
    "field": (lambda f: _lines(f, '{"body": "x", "id": 1}'), r"line 2, .*no field 'text' \(fields: 'body', 'id'\)"),
    "type": (lambda f: _lines(f, '{"text": 7}'), r"line 2, .*expected text in field 'text', found int"),
    "object": (lambda f: _lines(f, "[1]"), r"line 2, .*expected a JSON object, found list"),
    "deep": (lambda f: _lines(f, "[" * 100_000), r"line 2, .*no JSON: "),
    "gzip": (_truncated_gzip, r"a\.jsonl\.gz, line \d+, byte \d+: EOFError: Compressed file ended"),
    "page": (_damaged_parquet, r"a\.parquet, row 1\d\d: rows 1\d\d to 199 of row group 1: "),
    "null": (_null_in_parquet, r"a\.parquet, row 1: column 'text' is null"),
    "parquet": (_no_parquet, r"z\.parquet, row 0: no parquet file: "),
    "id": (_id_outside, r"b\.bin, token 0, byte 0: token 900 is outside of the vocabulary of 256"),
    "short": (_short_shard, r"a\.bin, token 189, byte 378: expected 200 tokens, the file ends early"),
}


@MODES
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named_or_skipped(damage: str, mode: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, match = DAMAGES[damage]
    folder = tmp_path / "corpus"
    folder.mkdir()
    make(folder)
    with pytest.raises(DataError, match=rf"only readable records .*found .*{match}") as caught:
        _open(folder, tmp_path / "cache", corrupt=CorruptSpec(), mode=mode)
    assert "corrupt.policy: skip" in caught.value.hint
    data = _open(folder, tmp_path / "cache", corrupt=SKIP, mode=mode)
    assert data.skipped.count == 1
    assert "skipping a corrupt record: " + data.skipped.first[0] in capsys.readouterr().out
    assert data.train.notice.startswith("1 corrupt record skipped (digest ")
    assert data.train.batch(range(data.train.num_samples)).num_targets > 0


@MODES
def test_more_than_allowed_is_an_error_with_the_first(mode: str, tmp_path: Path) -> None:
    _lines(tmp_path, *["{"] * 6)
    with pytest.raises(DataError, match=r"at most 5 corrupt records in .*, found 6; the first: .*a\.jsonl, line 2, "):
        _open(tmp_path, tmp_path / "cache", corrupt=SKIP, mode=mode)


@MODES
def test_what_is_in_the_cache_is_judged_by_the_policy_of_each_job(mode: str, tmp_path: Path) -> None:
    _lines(tmp_path, "{", "{")
    assert _open(tmp_path, tmp_path / "cache", corrupt=SKIP, mode=mode).skipped.count == 2
    for stricter in (CorruptSpec(), CorruptSpec(policy="skip", max_records=1)):
        with pytest.raises(DataError, match="line 2, "):
            _open(tmp_path, tmp_path / "cache", corrupt=stricter, mode=mode)


@MODES
def test_all_nodes_skip_the_same_and_notice_if_not(mode: str, tmp_path: Path) -> None:
    for node, bad in (("a", "{"), ("b", "{"), ("c", '{"x": 1}')):
        (tmp_path / node).mkdir()
        _lines(tmp_path / node, bad)
    nodes = [_open(tmp_path / n, tmp_path / f"cache-{n}", corrupt=SKIP, mode=mode, hold_out_every=4) for n in "abc"]
    assert nodes[0].digest == nodes[1].digest
    assert nodes[0].skipped.digest == nodes[1].skipped.digest
    lines = (tmp_path / "b" / "a.jsonl").read_text().replace("\n{\n", "\n\n")
    (tmp_path / "b" / "a.jsonl").write_text(lines)
    repaired = _open(tmp_path / "b", tmp_path / "cache-b", corrupt=SKIP, mode=mode, hold_out_every=4)
    assert repaired.digest != nodes[0].digest


def test_the_limit_counts_all_sources_together(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        _lines(tmp_path / name, *["{"] * 3)
    sources = tuple(DataSourceSpec(uri=str(tmp_path / name)) for name in ("a", "b"))
    data = TrainDataSpec(sources=sources, corrupt=SKIP)
    spec = TrainSpec(data=data, model=ModelSpec(context=16), eval=EvalSpec(every=0))
    with pytest.raises(DataError, match=r"at most 5 corrupt records in .*, found 6"):
        open_data(spec, cache_dir=tmp_path / "cache")


def test_bad_utf8_is_replaced_everywhere(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "one \xff two"}\n{"text": "half \\ud800 pair"}\n' * 4)
    data = _open(tmp_path, tmp_path / "cache", corrupt=CorruptSpec())
    rows = data.train.batch(range(data.train.num_samples))
    text = data.tokenizer.decode(rows.ids.flatten().tolist())
    assert text.count("\N{REPLACEMENT CHARACTER}") >= 6
    assert data.skipped.count == 0
