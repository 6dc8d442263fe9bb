"""Without it a killed or concurrent build could leave a cache with wrong tokens that every later job trains on."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainctl.core.errors import DataError, UnavailableError
from trainctl.core.records.train_spec import ModelSpec, TokenizerSpec, TrainDataSpec, TrainSpec
from trainctl.parallel.data import token_cache
from trainctl.parallel.data.cache_lock import exclusive
from trainctl.parallel.data.corpus import open_corpus, sources_of
from trainctl.parallel.data.make_tokenizer import make_tokenizer
from trainctl.parallel.data.open_data import open_data
from trainctl.parallel.data.token_cache import Tokens
from trainctl.parallel.data.tokenizer import TextTokenizer

BYTES = TokenizerSpec()


def _open(data: TrainDataSpec, spec: TokenizerSpec, cache_dir: Path) -> tuple[Tokens, TextTokenizer]:
    ((path, source),) = sources_of(data).items()
    corpus = open_corpus(source, hold_out_every=data.hold_out_every, path=path)
    tokenizer = make_tokenizer(spec, [corpus], cache_dir=cache_dir, deadline_s=10)
    tokens = token_cache.open_tokens(corpus, tokenizer, corrupt=data.corrupt, cache_dir=cache_dir, deadline_s=10)
    return tokens, tokenizer


def open_tokens(data: TrainDataSpec, spec: TokenizerSpec, *, cache_dir: Path) -> Tokens:
    return _open(data, spec, cache_dir)[0]


@pytest.fixture
def data(tmp_path: Path) -> TrainDataSpec:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for index in range(6):
        (folder / f"{index}.txt").write_text(f"file number {index}\n" * 20)
    return TrainDataSpec(uri=str(folder), hold_out_every=3)


@pytest.fixture
def no_building(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("the tokens are built a second time")

    monkeypatch.setattr(token_cache, "build_tokens", refuse)


def _equal(a: Tokens, b: Tokens) -> bool:
    parts = ((a.train, b.train), (a.held_out, b.held_out))
    same = all(np.array_equal(x.ids, y.ids) and np.array_equal(x.ends, y.ends) for x, y in parts)
    return same and a.digest == b.digest


@pytest.mark.parametrize("tokenizer", [BYTES, TokenizerSpec(kind="bpe", vocab_size=270)])
def test_tokens_are_the_corpus(data: TrainDataSpec, tokenizer: TokenizerSpec, tmp_path: Path) -> None:
    tokens, made = _open(data, tokenizer, tmp_path)
    train = "".join(f"file number {index}\n" * 20 for index in (0, 1, 3, 4))
    assert made.decode(tokens.train.ids.tolist()) == train
    assert made.decode(tokens.held_out.ids.tolist()) == train.replace("0", "2").replace("1", "5")[: 2 * 280]
    assert tokens.train.ids.dtype == np.uint16
    assert len(tokens.train.ends) == 4
    assert tokens.train.ends[-1] == len(tokens.train.ids)


def test_the_second_worker_reads_what_the_first_built(
    data: TrainDataSpec, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    first = open_tokens(data, BYTES, cache_dir=tmp_path)
    request.getfixturevalue("no_building")
    assert _equal(first, open_tokens(data, BYTES, cache_dir=tmp_path))


def test_a_changed_file_or_setting_makes_other_tokens(data: TrainDataSpec, tmp_path: Path) -> None:
    first = open_tokens(data, BYTES, cache_dir=tmp_path)
    bpe = open_tokens(data, TokenizerSpec(kind="bpe", vocab_size=270), cache_dir=tmp_path)
    (Path(data.uri) / "0.txt").write_text("something else")
    changed = open_tokens(data, BYTES, cache_dir=tmp_path)
    assert len({first.digest, bpe.digest, changed.digest}) == 3


def test_the_digest_is_the_same_on_another_node(data: TrainDataSpec, tmp_path: Path) -> None:
    bpe = TokenizerSpec(kind="bpe", vocab_size=280)
    assert _equal(*(open_tokens(data, bpe, cache_dir=tmp_path / node) for node in ("node-0", "node-1")))


def test_a_torn_cache_is_built_again(data: TrainDataSpec, tmp_path: Path) -> None:
    first = open_tokens(data, BYTES, cache_dir=tmp_path)
    expected = first.train.ids.tolist()
    (path,) = tmp_path.glob("tokens/*/train.bin")
    replacement = path.with_name("short")
    replacement.write_bytes(b"12")
    os.replace(replacement, path)
    assert open_tokens(data, BYTES, cache_dir=tmp_path).train.ids.tolist() == expected


@pytest.mark.parametrize("mode", ["cached", "streaming"])
def test_a_cache_whose_description_is_damaged_is_built_again(data: TrainDataSpec, tmp_path: Path, mode: str) -> None:
    spec = TrainSpec(data=replace(data, mode=mode), model=ModelSpec(context=32))
    expected = open_data(spec, cache_dir=tmp_path / "cache").train.num_samples
    (path,) = tmp_path.glob("cache/*/*/meta.json")
    whole = path.read_bytes()
    for content in ("[]", "[" * 100_000):
        path.write_text(content)
        assert open_data(spec, cache_dir=tmp_path / "cache").train.num_samples == expected
        assert path.read_bytes() == whole


_STUCK_BUILDER = """
import signal, sys
from pathlib import Path
from trainctl.core.records.train_spec import TrainDataSpec, TrainSpec
from trainctl.parallel.data import token_cache
from trainctl.parallel.data.open_data import open_data

def stuck(corpus, tokenizer, corrupt, folder):
    (folder / "train.bin").write_bytes(b"half")
    print("building", flush=True)
    signal.pause()

token_cache.build_tokens = stuck
open_data(TrainSpec(data=TrainDataSpec(uri=sys.argv[1], hold_out_every=3)), cache_dir=Path(sys.argv[2]))
"""


def test_a_killed_builder_leaves_nothing_half_made(data: TrainDataSpec, tmp_path: Path) -> None:
    command = [sys.executable, "-c", _STUCK_BUILDER, data.uri, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as builder:
        assert builder.stdout is not None
        assert builder.stdout.readline() == "building\n"
        with pytest.raises(UnavailableError, match=f"found it held by process {builder.pid}"):
            open_data(TrainSpec(data=data), cache_dir=tmp_path, deadline_s=0.0)
        builder.kill()
    tokens = open_tokens(data, BYTES, cache_dir=tmp_path)
    assert len(tokens.train.ids) == 4 * 280
    assert sorted(path.suffix for path in (tmp_path / "tokens").iterdir()) == ["", ".lock"]


def test_a_waiting_worker_gets_the_lock_when_it_is_free(tmp_path: Path) -> None:
    held, waited = threading.Event(), threading.Event()

    def wait() -> None:
        held.wait(10)
        with exclusive(tmp_path / "x.lock", what="x", deadline_s=10):
            waited.set()

    thread = threading.Thread(target=wait)
    thread.start()
    with exclusive(tmp_path / "x.lock", what="x", deadline_s=10):
        held.set()
        assert not waited.wait(0.2)
    assert waited.wait(10)
    thread.join()


def test_empty_files_are_an_error_and_leave_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "a.txt").touch()
    (folder / "b.txt").touch()
    with pytest.raises(DataError, match="found 2 files without any text"):
        open_tokens(TrainDataSpec(uri=str(folder)), BYTES, cache_dir=tmp_path)
    assert [path.suffix for path in (tmp_path / "tokens").iterdir()] == [".lock"]


def test_a_cache_that_cannot_be_written_is_named(data: TrainDataSpec, tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the cache folder should be")
    with pytest.raises(DataError, match=r"expected to write the tokens of .* under .*/blocked"):
        open_tokens(data, BYTES, cache_dir=blocked)
