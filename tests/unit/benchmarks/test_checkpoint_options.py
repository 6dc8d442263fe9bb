"""``make bench-checkpoint`` with any choice of what to measure, with ranks that only say that they did it.

Without it a long benchmark could fail at its end for an option.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks import checkpoint
from benchmarks.checkpoint import PARTS, STORAGE, TRAINING, World
from benchmarks.checkpoint_train import WAYS

OF_WAYS = {
    "step_slowdown_while_saving": {"lazy"},
    "stall_vs_memcpy": {"eager"},
    "stall_lazy_vs_dcp_async": {"lazy", "dcp"},
    "step_slowdown_vs_dcp": {"lazy", "dcp"},
    "stall_library_vs_dcp_async": {"library", "dcp"},
    "peak_extra_host_memory_dcp_save_ratio": {"dcp"},
}
"""Figures of training, and the ways that each takes."""


class Rank:
    """The end of a pipe whose other end does in no time what it is told."""

    def send(self, line: str) -> None:
        verb, _, folder = line.split()
        if verb in ("save", "train"):
            Path(folder).mkdir(exist_ok=True)
            (Path(folder) / "bytes").write_bytes(b"123")

    def recv(self) -> dict[str, float]:
        seconds = dict.fromkeys(("seconds", "copy", "stall", "step", "idle", "compute", "durable", "lost"), 0.5)
        return {**seconds, "extra": 10.0, "read": 100.0, "same": True, "digest": 1.0}


@contextlib.contextmanager
def world(size: int, folder: Path, state_bytes: int, tokens: int) -> Iterator[World]:
    pipes: list[Any] = [Rank() for _ in range(size)]
    yield World(pipes)


def measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """What the last line says, when it is run so."""
    monkeypatch.setattr(checkpoint, "world", world)
    monkeypatch.setattr(checkpoint, "forget_pages", lambda folder: None)  # waits for the disk
    monkeypatch.setattr(sys, "argv", ["checkpoint.py", "--mib", "1", *arguments])
    assert checkpoint.main() in (0, 1)
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


@pytest.mark.parametrize("count", range(1, len(WAYS) + 1))
def test_figures_of_ways_that_are_not_asked_for_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], count: int
) -> None:
    for ways in itertools.combinations(WAYS, count):
        options = ("--parts", "training", "--ways", ",".join(ways), "--worlds", "1,2", "--dir", str(tmp_path))
        found = measured(monkeypatch, capsys, *options)
        assert {name for name in OF_WAYS if name in found} == {n for n, takes in OF_WAYS.items() if takes <= {*ways}}
        assert ("peak_extra_host_memory_save_ratio" in found) == bool({"lazy", "eager"} & {*ways})
        assert "peak_extra_host_memory_load_ratio" not in found
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("worlds", [(1,), (2,), (1, 2, 4), (4, 1), (3, 2, 1)])
@pytest.mark.parametrize("parts", [(STORAGE,), (TRAINING,), PARTS])
def test_any_numbers_of_processes(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    worlds: Sequence[int],
    parts: Sequence[str],
) -> None:
    names = ",".join(map(str, worlds))
    found = measured(monkeypatch, capsys, "--worlds", names, "--parts", ",".join(parts), "--dir", str(tmp_path))
    reshards = {f"reshard_{a}to{b}_vs_dcp" for pair in itertools.pairwise(worlds) for a, b in (pair, pair[::-1])}
    assert {name for name in found if name.startswith("reshard")} == (reshards if STORAGE in parts else set())
    assert ("rows_to_columns_vs_dcp" in found) == (STORAGE in parts and max(worlds) > 1)
    assert ("load_warm_vs_dcp" in found) == (STORAGE in parts)
    assert ("stall_vs_memcpy" in found) == (TRAINING in parts)
    assert found["worlds"] == list(worlds)


@pytest.mark.parametrize(
    ("option", "text", "words"),
    [
        ("--ways", "lazy,foo", "expected some of lazy, eager, dcp, dcp-process, library, found 'foo'"),
        ("--ways", "", "found ''"),
        ("--parts", "all", "expected some of storage, training, found 'all'"),
        ("--worlds", "1,x", "expected 1 or more, found 'x'"),
        ("--worlds", "0", "expected 1 or more, found '0'"),
        ("--pairs", "0", "expected 1 or more, found '0'"),
        ("--mib", "-3", "expected 1 or more, found '-3'"),
    ],
)
def test_what_cannot_be_measured_is_said_in_a_sentence(
    capsys: pytest.CaptureFixture[str], option: str, text: str, words: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        checkpoint.parser().parse_args([f"{option}={text}"])
    assert caught.value.code == 2
    assert words in capsys.readouterr().err


def test_what_is_named_twice_is_measured_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--ways", "lazy,dcp,lazy", "--worlds", "2,2", "--parts", "storage,storage,training")
    found = measured(monkeypatch, capsys, *options, "--dir", str(tmp_path / "made"))
    assert found["worlds"] == [2]
    assert not any(name.startswith("reshard") for name in found)


def test_a_rank_that_ends_is_an_error_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def gone(self: Rank) -> dict[str, float]:
        raise EOFError

    monkeypatch.setattr(Rank, "recv", gone)
    with pytest.raises(RuntimeError, match=r"save by [a-z]+ with 1 processes: a rank has ended"):
        measured(monkeypatch, capsys, "--dir", str(tmp_path))
    assert not list(tmp_path.iterdir()), "what was written is removed"
