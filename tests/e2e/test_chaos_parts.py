"""The parts of chaos do what they say: wires hurt as told, and broken histories are caught.

Without it the chaos tests could be green because nothing was hurt, or nobody looked.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from e2e.control_faults import KINDS, script_of
from e2e.network import Condition, Network, Wire
from e2e.store_history import broken_jobs, overwritten_events, stale_writes
from trainctl.controller import keys
from trainctl.controller.store.port import KeyEvent, KeyValue, WatchBatch


def put(key: str, value: Any, *, version: int = 1) -> KeyEvent:
    found = KeyValue(key=key, value=keys.encode(value), create_revision=1, mod_revision=1, version=version)
    return KeyEvent(key=key, current=found)


def history(*batches: KeyEvent | tuple[KeyEvent, ...]) -> list[WatchBatch]:
    together = [batch if isinstance(batch, tuple) else (batch,) for batch in batches]
    return [WatchBatch(revision=n, events=events) for n, events in enumerate(together, start=1)]


def leader(epoch: int) -> KeyEvent:
    return put(keys.LEADER, {"holder": "h", "epoch": epoch})


NOBODY = KeyEvent(key=keys.LEADER, current=None)
NODE = put(keys.node("n"), {})


def event(epoch: int, **extra: Any) -> KeyEvent:
    return put(keys.events("t", "u", 1), [{"epoch": epoch, "revision": 1}], **extra)


def test_writes_of_whoever_leads_are_right() -> None:
    assert stale_writes(history(leader(1), NODE, event(1), NOBODY, leader(2), event(2))) == []


@pytest.mark.parametrize(
    ("batches", "why"),
    [
        ((NODE,), "nobody led"),
        ((leader(1), NOBODY, NODE), "nobody led"),
        ((leader(1), NOBODY, leader(2), event(1)), "by epoch 1, while 2 led"),
        ((leader(2), NOBODY, leader(2)), "epoch 2 after 2"),
    ],
)
def test_stale_writes_are_caught(batches: tuple[KeyEvent, ...], why: str) -> None:
    assert [one.why for one in stale_writes(history(*batches))] == [why]


def test_events_that_were_written_over_are_caught() -> None:
    assert overwritten_events(history(leader(1), event(1))) == []
    assert overwritten_events(history(leader(1), event(1), event(1, version=2))) == [keys.events("t", "u", 1)]


def job(phase: str, *, generation: int = 1, epoch: int = 1) -> KeyEvent:
    return put(keys.status("t", "u"), {"phase": phase, "islands": [{"generation": generation}], "epoch": epoch})


def test_jobs_that_go_back_are_caught() -> None:
    assert broken_jobs(history(job("RUNNING"), job("RUNNING", generation=2), job("SUCCEEDED", generation=2))) == []
    assert len(broken_jobs(history(job("SUCCEEDED"), job("RUNNING")))) == 1
    assert len(broken_jobs(history(job("RUNNING", generation=2), job("RUNNING")))) == 1
    assert len(broken_jobs(history(job("RUNNING", epoch=2), job("RUNNING")))) == 1


def test_a_script_is_its_seed() -> None:
    assert script_of(3, 40) == script_of(3, 40) != script_of(4, 40)
    assert {fault.kind for fault in script_of(5, len(KINDS))} == set(KINDS)


@pytest.fixture
def echo() -> Iterator[str]:
    """A server that sends back what it gets."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                threading.Thread(target=_echo, args=(connection,), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)


def _echo(connection: socket.socket) -> None:
    with closing(connection):
        while data := connection.recv(1024):
            connection.sendall(data)


def connect(wire: Wire) -> socket.socket:
    host, _, port = wire.address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=10)


def test_wires(echo: str) -> None:
    with Network() as network:
        wire = network.wire(lambda: echo)
        with connect(wire) as client:
            client.sendall(b"a")
            assert client.recv(1) == b"a"
            for condition in (Condition.SILENT, Condition.DEAF):
                wire.hurt(condition)
                client.sendall(b"b")
                client.settimeout(0.2)
                with pytest.raises(TimeoutError):
                    client.recv(1)
                wire.heal()
                client.settimeout(10)
                assert client.recv(1) == b"b", "what was held back arrives"
            wire.hurt(Condition.OPEN, delay_s=0.2)
            began_s = time.monotonic()
            client.sendall(b"c")
            assert client.recv(1) == b"c"
            assert time.monotonic() - began_s >= 0.4, "each way"
            wire.hurt(Condition.CUT)
            with pytest.raises(ConnectionError):
                _until_refused(client)
            with pytest.raises(ConnectionError):
                _until_refused(connect(wire))
            wire.heal()
        with connect(wire) as client:
            client.sendall(b"d")
            assert client.recv(1) == b"d"


def _until_refused(client: socket.socket) -> None:
    with closing(client):
        while True:
            client.sendall(b"?")
            if client.recv(1) == b"":
                raise ConnectionResetError
