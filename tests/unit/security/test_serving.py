"""Without it a certificate could run out under a running controller, or its renewal cut open connections."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from trainctl.controller.security.authority import open_authority
from trainctl.controller.security.serving import (
    GivenFiles,
    OwnCertificate,
    ServerCertificateError,
    read_pair,
    server_credentials,
)
from trainctl.controller.security.tls import server_names
from trainctl.core.errors import PermissionDeniedError
from trainctl.protos.tls_probe import probe
from unit.controller.controller_harness import run
from unit.security.certificates import at

NOW_S = at("2026-01-31T12:00:00")


class Clock:
    def __init__(self, now_s: float = NOW_S) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


def test_a_certificate_is_renewed_after_two_thirds_of_its_life_or_when_the_clock_was_set(tmp_path: Path) -> None:
    clock = Clock()
    own = OwnCertificate(open_authority(tmp_path, NOW_S), ["localhost"], clock, 300)
    first = own.current()
    clock.now_s += 199
    assert own.current() is first
    clock.now_s += 2
    second = own.current()
    assert second is not first
    assert second.ends_s == NOW_S + 501
    clock.now_s = NOW_S - 86400  # it was a day ahead: what was made then is not good yet
    assert own.current().begins_s < clock.now_s


def test_given_files_are_taken_up_when_they_change_and_fit(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    authority = open_authority(tmp_path / "tls", NOW_S)
    crt, key = tmp_path / "a.crt", tmp_path / "a.key"

    def write(life_s: float) -> None:
        pair = authority.for_server(["localhost"], NOW_S, life_s)
        crt.write_bytes(pair.chain)
        key.write_bytes(pair.key)

    write(100)
    given = GivenFiles(crt, key, Clock())
    first = given.current()
    assert given.current() is first
    write(200)
    assert given.current().ends_s == NOW_S + 200
    crt.write_text("garbage")
    assert given.current().ends_s == NOW_S + 200
    assert "the certificate in use stays" in caplog.text
    crt.unlink()
    assert given.current().ends_s == NOW_S + 200
    write(300)
    assert given.current().ends_s == NOW_S + 300


def test_a_given_certificate_that_is_over_is_said_once_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    crt, key = tmp_path / "a.crt", tmp_path / "a.key"
    pair = open_authority(tmp_path / "tls", NOW_S).for_server(["localhost"], NOW_S, 100)
    crt.write_bytes(pair.chain)
    key.write_bytes(pair.key)
    given = GivenFiles(crt, key, clock)
    given.current()
    assert "no client takes" not in caplog.text
    clock.now_s += 101
    for _ in range(3):
        given.current()
    assert caplog.text.count("no client takes") == 1
    assert f"{crt}: it is good from" in caplog.text
    assert "to 2026-01-31 12:01:40 UTC, and it is 2026-01-31 12:01:41 UTC now" in caplog.text
    GivenFiles(crt, key, clock).current()
    assert caplog.text.count("no client takes") == 2, "at a start, too"


def test_files_that_do_not_fit_are_one_error_each(tmp_path: Path) -> None:
    authority = open_authority(tmp_path / "tls", NOW_S)
    one, two = (authority.for_server(["localhost"], NOW_S, 100) for _ in range(2))
    crt, key = tmp_path / "a.crt", tmp_path / "a.key"
    with pytest.raises(PermissionDeniedError, match=r"a.crt cannot be read"):
        read_pair(crt, key)
    crt.write_bytes(one.chain)
    key.write_bytes(two.key)
    with pytest.raises(ServerCertificateError, match=r"a.key is not the key of .*a.crt"):
        read_pair(crt, key)
    key.write_text("x")
    with pytest.raises(ServerCertificateError, match=r"a.key: expected a private key"):
        read_pair(crt, key)
    crt.write_text("x")
    with pytest.raises(ServerCertificateError, match=r"a.crt: expected certificates"):
        read_pair(crt, key)


def test_a_certificate_for_all_addresses_does_not_exist() -> None:
    names = server_names(["0.0.0.0", "::", "[::1]", "ctl.example", "localhost"])
    assert {"::1", "ctl.example", "localhost", "127.0.0.1"} <= set(names)
    assert len(set(names)) == len(names)
    assert not {"0.0.0.0", "::", "[::1]"} & set(names)


def test_a_running_server_shows_the_new_one_and_open_connections_stay(tmp_path: Path) -> None:
    async def body() -> None:
        clock = Clock(time.time())
        authority = open_authority(tmp_path, clock.now_s)
        server = aio.server()
        own = OwnCertificate(authority, ["127.0.0.1"], clock, 300)
        port = server.add_secure_port("127.0.0.1:0", server_credentials(own))

        class Health(health_pb2_grpc.HealthServicer):
            async def Watch(  # noqa: N802
                self, request: health_pb2.HealthCheckRequest, context: Any
            ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
                yield health_pb2.HealthCheckResponse(status=1)
                await changed.wait()
                yield health_pb2.HealthCheckResponse(status=2)

        changed = asyncio.Event()
        health_pb2_grpc.add_HealthServicer_to_server(Health(), server)
        await server.start()
        target, credentials = f"127.0.0.1:{port}", grpc.ssl_channel_credentials(authority.pem)
        async with aio.secure_channel(target, credentials) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            answers = aiter(stub.Watch(health_pb2.HealthCheckRequest(), timeout=20))
            assert (await anext(answers)).status == 1
            before = await asyncio.to_thread(probe, target, ca=authority.pem)
            clock.now_s += 250
            after = await asyncio.to_thread(probe, target, ca=authority.pem)
            changed.set()
            assert (await anext(answers)).status == 2
        await server.stop(None)
        assert before.shown is not None
        assert after.shown is not None
        assert after.verify_code == 0
        assert after.shown.ends_s == pytest.approx(before.shown.ends_s + 250, abs=1)

    run(body)
