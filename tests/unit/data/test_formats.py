"""Without it a format could lose, double or reorder documents, and a wrong column be found by bad losses only."""

from __future__ import annotations

import gzip
import json
import random
import sys
from pathlib import Path
from typing import Any

import fsspec  # type: ignore[import-untyped]
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainctl.core.errors import DataError
from trainctl.core.records.train_spec import DataSourceSpec
from trainctl.parallel.data.corpus import Corpus, open_corpus
from trainctl.parallel.data.formats import jsonl, text
from trainctl.parallel.data.formats.choice import format_for
from trainctl.parallel.data.formats.port import CorpusFile, Record
from trainctl.parallel.data.formats.text import TextFormat
from trainctl.parallel.data.formats.tokens import TokensFormat, write_shard
from trainctl.parallel.data.records import CorpusReader, Split
from unit.data.kinds import FORMATS, SEPARATOR, documents, write_corpus

LOCAL = fsspec.filesystem("file")


def _corpus(folder: Path, *, hold_out_every: int = 0, **source: Any) -> Corpus:
    return open_corpus(DataSourceSpec(uri=str(folder), **source), hold_out_every=hold_out_every)


def _file(path: Path) -> CorpusFile:
    return CorpusFile(path=str(path), size_bytes=path.stat().st_size, version="")


def _content(record: Record) -> object:
    return record.content.tolist() if isinstance(record.content, np.ndarray) else record.content


def _bytes(record: Record) -> bytes:
    assert record.content is not None
    return record.content.encode() if isinstance(record.content, str) else record.content.astype(np.uint8).tobytes()


@pytest.mark.parametrize("kind", FORMATS)
def test_the_documents_of_a_corpus_come_in_order(kind: str, tmp_path: Path) -> None:
    texts = documents(random.Random(kind), 30)
    write_corpus(tmp_path, kind, texts, files=3)
    found = list(CorpusReader(_corpus(tmp_path), vocab_size=256).records(None))
    ends = bytes([SEPARATOR]) if kind == "tokens" else b""
    assert [_bytes(located.record) for located in found] == [text.encode() + ends for text in texts]
    assert all(located.record.begins and located.split is Split.TRAIN for located in found)


@pytest.mark.parametrize("kind", FORMATS)
def test_reading_from_any_record_gives_the_rest(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "PIECE_BYTES", 64)
    write_corpus(tmp_path, kind, documents(random.Random(kind), 20), files=1)
    corpus = _corpus(tmp_path)
    reader = CorpusReader(corpus, vocab_size=256).format(corpus.files[0])
    everything = list(reader.read(LOCAL, corpus.files[0]))
    assert len(everything) >= 2
    for position, record in enumerate(everything):
        rest = list(reader.read(LOCAL, corpus.files[0], start=record.start, number=record.number))
        if not kind.startswith("text"):  # pieces of a text depend on where one begins, the text does not
            assert [(r.start, r.number, _content(r)) for r in rest] == [
                (r.start, r.number, _content(r)) for r in everything[position:]
            ]
        assert b"".join(map(_bytes, rest)) == b"".join(map(_bytes, everything[position:]))


@pytest.mark.parametrize("seed", range(20))
def test_pieces_of_text_end_with_lines_or_characters_and_at_the_cut(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = random.Random(seed)
    monkeypatch.setattr(text, "PIECE_BYTES", drawn.randint(8, 100))
    whole = "".join(drawn.choice(["a", "é", "\N{SNOWMAN}", "\U0001f600", "\n"]) for _ in range(drawn.randint(1, 600)))
    path = tmp_path / "a.txt"
    path.write_text(whole, newline="")
    size = path.stat().st_size
    cut = drawn.randint(1, size)
    records = list(TextFormat().read(LOCAL, _file(path), cut=cut))
    assert "".join(str(record.content) for record in records) == whole
    ends = [record.stop for record in records]
    assert any(cut <= end < cut + 4 for end in ends)
    assert [record.begins for record in records] == [
        record.start == 0 or (record.start >= cut and previous < cut)
        for record, previous in zip(records, [0, *(r.start for r in records)], strict=False)
    ]


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "tokens"])
def test_every_nth_record_is_held_out_where_there_are_few_files(kind: str, tmp_path: Path) -> None:
    texts = documents(random.Random(1), 30)
    write_corpus(tmp_path, kind, texts, files=1)
    found = CorpusReader(_corpus(tmp_path, hold_out_every=5), vocab_size=256).records(None)
    assert [located.split is Split.HELD_OUT for located in found] == [(n + 1) % 5 == 0 for n in range(30)]


def test_the_format_follows_from_the_name_or_is_told(tmp_path: Path) -> None:
    names = {"a.jsonl": "jsonl", "a.NDJSON.gz": "jsonl", "a.parquet": "parquet", "a.bin": "tokens", "a.txt.gz": "text"}
    for name, expected in names.items():
        assert format_for("auto", name, field="text", vocab_size=1).name == expected
        assert format_for("text", name, field="text", vocab_size=1).name == "text"


def test_another_field_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"body": "one"}) + "\n\n" + json.dumps({"body": "two"}))
    pq.write_table(pa.table({"body": ["three", "four"]}), tmp_path / "b.parquet")
    found = CorpusReader(_corpus(tmp_path, field="body"), vocab_size=256).records(None)
    assert [located.content for located in found] == ["one", "two", "three", "four"]


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.parquet").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match="needs pyarrow, which is not installed") as caught:
        list(CorpusReader(_corpus(tmp_path), vocab_size=256).records(None))
    assert "trainctl-orchestrator[data]" in caught.value.hint


@pytest.mark.parametrize(
    ("table", "match"),
    [
        (pa.table({"body": ["x"]}), r"a column 'text' in .*a\.parquet, found 'body'"),
        (pa.table({"text": [1]}), r"text in column 'text' of .*a\.parquet, found int64"),
    ],
)
def test_a_column_that_is_not_there_is_named(table: Any, match: str, tmp_path: Path) -> None:
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match=match):
        list(CorpusReader(_corpus(tmp_path), vocab_size=256).records(None))


@pytest.mark.parametrize("column", [pa.array(["a", "b"]).dictionary_encode(), pa.array(["a", "b"], pa.large_string())])
def test_texts_of_other_arrow_types_are_read(column: Any, tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
    found = CorpusReader(_corpus(tmp_path), vocab_size=256).records(None)
    assert [located.content for located in found] == ["a", "b"]


@pytest.mark.parametrize("dtype", ["<u2", "<u4"])
def test_plain_shards_of_an_unambiguous_type_are_read(dtype: str, tmp_path: Path) -> None:
    ids = np.random.default_rng(0).integers(0, 50257, 5000)
    ids.astype(dtype).tofile(tmp_path / "a.bin")
    (record,) = TokensFormat(50257).read(LOCAL, _file(tmp_path / "a.bin"))
    assert isinstance(record.content, np.ndarray)
    assert record.content.tolist() == ids.tolist()


def test_an_ambiguous_or_foreign_shard_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    np.arange(100, dtype="<u4").tofile(path)
    with pytest.raises(DataError, match="both uint16 and uint32 fit") as caught:
        list(TokensFormat(50257).read(LOCAL, _file(path)))
    assert "a.bin.json with dtype" in caught.value.hint
    np.full(5000, 60000, dtype="<u2").tofile(path)
    with pytest.raises(DataError, match="neither uint16 nor uint32 fits"):
        list(TokensFormat(50257).read(LOCAL, _file(path)))


@pytest.mark.parametrize(
    ("told", "match"),
    [
        ("{", "no JSON"),
        ({"format": "x"}, '"format": "trainctl-tokens"'),
        ({"dtype": "int8"}, 'uint16 or uint32, found "int8"'),
        ({"dtype": ["<u2"]}, 'uint16 or uint32, found \\["<u2"\\]'),
        ({"count": -1}, 'whole number in "count", found -1'),
        ({"vocabSize": 300}, '"vocabSize" 300, but the tokenizer has 256'),
        ({"separator": 400}, 'id of the vocabulary in "separator", found 400'),
    ],
)
def test_a_wrong_description_of_a_shard_is_named(told: Any, match: str, tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_shard(path, np.arange(10), vocab_size=256)
    sidecar = tmp_path / "a.bin.json"
    good = json.loads(sidecar.read_text())
    sidecar.write_text(told if isinstance(told, str) else json.dumps(good | told))
    with pytest.raises(DataError, match=match):
        list(TokensFormat(256).read(LOCAL, _file(path)))


def test_no_more_of_a_description_is_read_than_one_has(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.bin", np.arange(10), vocab_size=256)
    with (tmp_path / "a.bin.json").open("r+b") as sidecar:
        sidecar.truncate(1 << 40)  # a hole: whoever reads all of it has no memory left
    with pytest.raises(DataError, match="no JSON"):
        list(TokensFormat(256).read(LOCAL, _file(tmp_path / "a.bin")))


def test_descriptions_of_shards_are_no_data(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.bin", np.arange(10), vocab_size=256)
    assert [Path(file.path).name for file in _corpus(tmp_path).files] == ["a.bin"]


def test_a_line_that_is_too_long_is_stepped_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "MAX_LINE_BYTES", 100)
    lines = [json.dumps({"text": "x" * size}) for size in (10, 5000, 20)]
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    records = list(jsonl.JsonlFormat("text").read(LOCAL, _file(path)))
    assert [record.content and len(record.content) for record in records] == [10, None, 20]
    assert records[1].where == "line 2, byte 23"
