"""Whoever waits is told so, and what nobody answers is said within seconds, with its cause.

Without it a rank that waits for a dead one would wait in silence.
"""

from __future__ import annotations

import errno
import logging
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
from torch import nn

from trainctl.checkpoint.library import load, save
from trainctl.checkpoint.library.ranks import Ranks
from trainctl.checkpoint.storage import probe
from trainctl.checkpoint.storage.calls import Calls
from trainctl.checkpoint.storage.failures import StorageSaysNoError, failure_of
from trainctl.checkpoint.storage.patience import Patience
from trainctl.core.clock import ManualClock
from trainctl.core.errors import StorageAwayError
from waiting import PATIENCE_S


@pytest.fixture
def unanswered() -> str:
    """An address that refuses connections."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    return f"http://127.0.0.1:{port}/x"


def test_a_load_from_where_nobody_is_fails_within_seconds_and_says_why(
    unanswered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert probe.QUICK.deadline_s + probe.QUICK.answer_s < 15
    monkeypatch.setattr(probe, "QUICK", Patience(deadline_s=0.5))
    with pytest.raises(StorageAwayError, match=f"looking for {unanswered} failed: .*Connect call failed") as caught:
        load(unanswered, model=nn.Linear(2, 2))
    assert "check the address" in caught.value.hint


class ClientConnectorError(OSError):
    pass


def test_an_error_that_only_repeats_the_address_is_told_by_its_cause() -> None:
    def hidden(said: str) -> OSError:
        try:
            try:
                raise ClientConnectorError(errno.ECONNREFUSED, "Connect call failed")
            except OSError as error:
                raise FileNotFoundError(said) from error
        except FileNotFoundError as error:
            return failure_of(error, "looking at http://host/x/f")

    assert str(hidden("http://host/x/f")) == "looking at http://host/x/f: Connect call failed"
    assert str(hidden("no such bucket")) == "looking at http://host/x/f: no such bucket"


def test_a_storage_that_is_asked_again_and_again_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    calls = Calls(Patience(deadline_s=45.0, word_s=10.0), clock=clock, sleep=clock.advance, chance=lambda: 0.5)

    def refused(again: bool) -> None:
        raise ConnectionResetError("reset")

    with caplog.at_level(logging.WARNING, "trainctl.checkpoint"), pytest.raises(StorageSaysNoError):
        calls.call("reading s3://b/x", refused)
    lines = [record.message for record in caplog.records]
    assert 3 <= len(lines) <= 5
    assert all("reading s3://b/x" in line and "given up after 45 s" in line for line in lines)
    caplog.clear()
    calls.call("reading s3://b/x", lambda again: None)
    assert not caplog.records


def test_an_answer_that_takes_long_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    came = threading.Event()

    class Heard(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            came.set()

    logger, handler = logging.getLogger("trainctl.checkpoint"), Heard()
    logger.addHandler(handler)
    try:
        calls = Calls(Patience(answer_s=PATIENCE_S, word_s=0.05))
        assert calls.call("reading s3://b/x", lambda again: came.wait(PATIENCE_S))
    finally:
        logger.removeHandler(handler)
    assert f"reading s3://b/x: no answer for 0 s; waited for up to {PATIENCE_S:g} s" in caplog.records[0].message


@pytest.fixture
def one_rank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    where = f"file://{tmp_path_factory.mktemp('store') / 'store'}"
    dist.init_process_group("gloo", init_method=where, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_a_save_that_waits_for_another_rank_says_for_how_long(
    tmp_path: Path, one_rank: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    heard, gather = threading.Event(), dist.all_gather

    class Heard(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.set()

    def late(*arguments: Any, **named: Any) -> None:
        assert heard.wait(PATIENCE_S)
        gather(*arguments, **named)

    monkeypatch.setattr(dist, "all_gather", late)
    monkeypatch.setattr(Ranks, "_word_s", 0.05)
    logger, handler = logging.getLogger("trainctl.checkpoint"), Heard()
    logger.addHandler(handler)
    try:
        save(tmp_path, model=nn.Linear(2, 2), step=7)
    finally:
        logger.removeHandler(handler)
    words = f"saving step 7 to {tmp_path}: rank 0 of 1 has waited for the other ranks for 0 s: one is slow or frozen"
    assert caplog.records[0].message.startswith(words)
    assert caplog.records[0].message.endswith("given up after 1800 s")
