"""Commands that know several controllers: while a leader is dying they wait for the next one, as long as they may.

Without it a fail-over would break every command that is under way.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from trainctl.controller.rpc.standby import FailedTry, NotLeaderError, refusal
from trainctl.controller.store.port import StoreFullError
from unit.cli.conftest import Cli
from unit.cli.fake_controller import FakeController

MANY = 8
"""Refusals: more than all tries of a command that does not wait."""


@pytest.fixture
def dead() -> Iterator[str]:
    """An address where nobody answers."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainctl.cli.connection.client.FOLLOW_EVERY_S", 0.02)
    monkeypatch.setattr("trainctl.cli.connection.client.RETRY_DELAYS_S", (0.01, 0.01, 0.01))


def stands_by(leader: str) -> NotLeaderError:
    return NotLeaderError(f"this controller stands by; a at {leader} leads", hint="name all controllers")


@pytest.mark.parametrize("command", [("get", "jobs"), ("events", "a")])
def test_a_command_waits_for_the_next_leader(
    controller: FakeController, cli: Cli, dead: str, command: tuple[str, ...]
) -> None:
    controller.add_job("a")
    controller.failures = [stands_by(dead) for _ in range(MANY)]
    done = cli(*command, "--address", f"{dead},{controller.address}", "--timeout", "20s")
    assert done.code == 0, done.err


@pytest.mark.parametrize("command", [("get", "jobs"), ("events", "a")])
def test_a_command_asks_again_when_the_controller_ended_as_it_was_asked(
    controller: FakeController, cli: Cli, dead: str, command: tuple[str, ...]
) -> None:
    controller.add_job("a")
    controller.ends = 1
    done = cli(*command, "--address", f"{controller.address},{dead}", "--timeout", "20s")
    assert done.code == 0, done.err


def test_it_says_when_there_is_none(controller: FakeController, cli: Cli, dead: str) -> None:
    controller.failures = [stands_by(dead) for _ in range(1000)]
    begun_s = time.monotonic()
    done = cli("get", "jobs", "--address", f"{dead},{controller.address}", "--timeout", "300ms")
    assert time.monotonic() - begun_s >= 0.3
    assert done.code == 7
    assert f"none of the controllers at {dead},{controller.address}" in done.err
    assert f"led within 0.3 s: this controller stands by; a at {dead} leads" in done.err
    assert "(NOT_LEADER)" in done.err
    assert "--lease-ttl" in done.err


def test_it_says_what_keeps_them_all_from_leading(controller: FakeController, cli: Cli, dead: str) -> None:
    full = StoreFullError("etcd e:2379: lease_grant: the store is full", hint="disarm its NOSPACE alarm")
    controller.failures = [
        told for _ in range(500) for told in (refusal("", FailedTry(1e9, full)), stands_by(dead))
    ]  # one knows why, another one only who led before
    done = cli("get", "jobs", "--address", f"{dead},{controller.address}", "--timeout", "300ms")
    assert done.code == 7
    assert "nobody leads yet: it tried at 2001-09-09 01:46:40 UTC and could not: etcd e:2379" in done.err
    assert "hint: disarm its NOSPACE alarm" in done.err


def test_with_one_address_there_is_nobody_to_wait_for(controller: FakeController, cli: Cli, dead: str) -> None:
    controller.failures = [stands_by(dead) for _ in range(MANY)]
    done = cli("get", "jobs", "--timeout", "60s")
    assert done.code == 7
    assert "name all controllers" in done.err
    assert controller.failures, "it gave up before"
