"""``make bench-overhead`` ends with its JSON line and the right exit code, also where a side is broken."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import overhead


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[], tuple[int, Any]]:
    """Runs the benchmark with a system that is always up; exit code and JSON line."""
    nothing = SimpleNamespace(up=lambda: None, down=lambda: None)
    monkeypatch.setattr(overhead, "Ours", lambda *_, **__: SimpleNamespace(system=nothing))
    figures = [SimpleNamespace(vote_s=0.002)] * 20
    monkeypatch.setattr(overhead, "run_ours", lambda *_: (900.0, figures))
    monkeypatch.setattr(overhead.sys, "argv", ["overhead.py", "--pairs", "2"])  # type: ignore[attr-defined]

    def run() -> tuple[int, Any]:
        code = overhead.main()
        return code, json.loads(capsys.readouterr().out.splitlines()[-1])

    return run


def test_both_sides_ran(bench: Callable[[], tuple[int, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overhead, "run_ddp", lambda *_: 1000.0)
    code, found = bench()
    assert (code, found["pairs"], found["errors"]) == (0, 2, [])
    assert (found["throughput_ratio_vs_ddp"], found["ddp_tokens_per_s"], found["vote_ms"]) == (0.9, 1000, 2.0)


def test_a_broken_peer_is_null_and_an_exit_code(
    bench: Callable[[], tuple[int, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (torchrun := tmp_path / "torchrun").write_text("#!/bin/sh\necho no such backend >&2\nexit 3\n")
    torchrun.chmod(0o755)
    monkeypatch.setattr(overhead.sys, "executable", str(tmp_path / "python"))  # type: ignore[attr-defined]
    code, found = bench()
    assert (code, found["pairs"]) == (1, 0)
    for key in ("throughput_ratio_vs_ddp", "throughput_ratio_min", "tokens_per_s", "ddp_tokens_per_s", "vote_ms"):
        assert found[key] is None, key
    assert found["errors"] == [f"pair {n} ddp: CalledProcessError: no such backend" for n in range(3)]


def test_a_broken_system_of_ours_is_told_the_same_way(
    bench: Callable[[], tuple[int, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> Any:
        raise AssertionError("the job FAILED")

    monkeypatch.setattr(overhead, "run_ddp", lambda *_: 1000.0)
    monkeypatch.setattr(overhead, "run_ours", refuse)
    code, found = bench()
    assert (code, found["throughput_ratio_vs_ddp"]) == (1, None)
    assert found["errors"][0] == "pair 0 trainctl: AssertionError: the job FAILED"
