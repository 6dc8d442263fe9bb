"""Without it a failed handshake would be an unreadable message of gRPC, with nothing that says what to do."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from grpc import aio

from trainctl.controller.security.authority import Authority, Pair, open_authority
from trainctl.controller.security.peer import agent_uri
from trainctl.controller.security.serving import server_credentials
from trainctl.protos.tls_failures import TlsFailedError, Wanted, judge, why_not
from trainctl.protos.tls_probe import Seen, Shown, probe
from unit.controller.controller_harness import run
from unit.security.certificates import at, key_pem, new_key

NOW_S = at("2026-01-31T12:00:00")
SHOWN = Shown(names=("a.example", "10.0.0.1"), issuer="CN=somebody", begins_s=NOW_S - 10, ends_s=NOW_S + 10)
GOOD = Seen(connected=True, speaks_tls=True, shown=SHOWN)
WANTED = Wanted(ca=b"ca", ca_origin="the authority in /ca.crt", how_ca="--ca-file FILE")


def said(wanted: Wanted, seen: Seen, now_s: float = NOW_S) -> str:
    found = judge("h:1", wanted, seen, now_s)
    assert found is not None
    assert found.code == "TLS_FAILED"
    assert found.hint
    return f"{found}\n{found.hint}"


def test_what_has_nothing_to_do_with_tls_is_left_alone() -> None:
    assert judge("h:1", WANTED, Seen(connected=False), NOW_S) is None
    assert judge("h:1", WANTED, GOOD, NOW_S) is None
    assert judge("h:1", replace(WANTED, ca=None), Seen(connected=True), NOW_S) is None


def test_each_misfit_has_its_own_sentence() -> None:
    assert "h:1 expects TLS, and this side spoke in clear\nsay whom to trust: --ca-file" in said(
        replace(WANTED, ca=None), GOOD
    )
    assert "expected TLS at h:1, found something that speaks in clear" in said(WANTED, Seen(connected=True))
    agents = replace(WANTED, how_clear=" If TLS was taken away: remove it")
    assert "is it another port? If TLS was taken away: remove it" in said(agents, Seen(connected=True))
    for code in (19, 20, 21):
        text = said(WANTED, replace(GOOD, verify_code=code))
        assert "was not issued by the authority in /ca.crt, but by CN=somebody" in text
    text = said(WANTED, replace(GOOD, verify_code=10), NOW_S + 20)
    assert (
        "from 2026-01-31 11:59:50 UTC to 2026-01-31 12:00:10 UTC; by this machine's clock it is 2026-01-31 12:00:20"
        in text
    )
    assert "is this machine's clock right" in said(WANTED, replace(GOOD, verify_code=9))
    assert "is for a.example, 10.0.0.1, not for h\n" in said(WANTED, replace(GOOD, verify_code=62))
    assert "--tls-name h" in said(WANTED, replace(GOOD, verify_code=64))
    assert "cannot be trusted: because" in said(WANTED, replace(GOOD, verify_code=77, verify_text="because"))
    hung_up = replace(GOOD, alert="it hung up")
    assert "expects the certificate of a client, and this side has none" in said(WANTED, hung_up)
    own = replace(WANTED, certificate=b"c", key=b"k", ends_s=NOW_S - 1)
    assert "it expired at 2026-01-31 11:59:59 UTC, it is now 2026-01-31 12:00:00 UTC" in said(own, hung_up)
    assert "refused this side's certificate" in said(replace(own, ends_s=NOW_S + 100), hung_up)


def test_an_authority_that_is_over_is_told_from_a_certificate_that_is(tmp_path: Path) -> None:
    begun_s = NOW_S - 20 * 365 * 86400
    old = open_authority(tmp_path, begun_s).pem
    told = said(replace(WANTED, ca=old), replace(GOOD, verify_code=10))
    assert "the authority in /ca.crt is good from 2006-02-0" in told
    assert "to 2016-" in told
    assert "the authority is to be replaced" in told
    assert "the certificate that h:1 shows is good from" in said(
        replace(WANTED, ca=old), replace(GOOD, verify_code=9), begun_s
    )


def test_no_secret_is_shown() -> None:
    assert "secret" not in repr(Wanted(ca=b"x", certificate=b"c", key=b"secret"))


class Fixed:
    def __init__(self, pair: Pair) -> None:
        self.pair = pair

    def current(self) -> Pair:
        return self.pair


@asynccontextmanager
async def listening(source: Any, clients_of: Authority | None = None) -> AsyncIterator[str]:
    server = aio.server()
    port = server.add_secure_port("127.0.0.1:0", server_credentials(source, clients_of=clients_of))
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


def test_real_servers_are_seen_as_they_are(tmp_path: Path) -> None:
    async def body() -> None:
        now_s = time.time()
        ours, others = open_authority(tmp_path / "a", now_s), open_authority(tmp_path / "b", now_s)
        right = ours.for_server(["127.0.0.1"], now_s, 100)
        key = new_key()

        def wanted(by: Authority, life_s: float = 100) -> Wanted:
            pem = by.for_node(key.public_key(), "n", agent_uri("i", "n"), now_s, life_s)
            return Wanted(ca=ours.pem, certificate=pem, key=key_pem(key), ends_s=now_s + life_s)

        async def found(target: str, wanted: Wanted) -> str:
            return str(await asyncio.to_thread(why_not, target, wanted) or "nothing")

        trusting = Wanted(ca=ours.pem)
        async with listening(Fixed(right)) as target:
            assert await found(target, trusting) == "nothing"
            assert "expects TLS" in await found(target, Wanted(ca=None))
            assert "not issued by" in await found(target, Wanted(ca=others.pem))
            assert "cannot be read" in await found(target, Wanted(ca=b"no certificate"))
        async with listening(Fixed(ours.for_server(["a.example"], now_s, 100))) as target:
            assert "is for a.example, not for 127.0.0.1" in await found(target, trusting)
        async with listening(Fixed(ours.for_server(["127.0.0.1"], now_s - 100, 50))) as target:
            assert "is good from" in await found(target, trusting)
        async with listening(Fixed(ours.for_server(["127.0.0.1"], now_s + 1000, 50))) as target:
            assert "is good from" in await found(target, trusting)
        async with listening(Fixed(right), clients_of=ours) as target:
            assert await found(target, wanted(ours)) == "nothing"
            assert "expects the certificate of a client" in await found(target, trusting)
            assert "refused this side's certificate" in await found(target, wanted(others))
            assert "it expired at" in await found(target, wanted(ours, life_s=-1))

    run(body)


def test_whoever_listens_the_probe_comes_back() -> None:
    noise = random.Random(5)

    def answer(listener: socket.socket, words: bytes, wait: bool) -> None:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            connection.sendall(words)
            while wait and connection.recv(1 << 16):
                pass

    for words, wait in ((b"", False), (b"HTTP/1.1 400 no\r\n\r\n", True), (noise.randbytes(5000), False)):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            thread = threading.Thread(target=answer, args=(listener, words, wait))
            thread.start()
            assert probe(f"127.0.0.1:{port}", ca=b"") == Seen(connected=True)
            thread.join(10)
    assert probe(f"127.0.0.1:{port}") == Seen(connected=False)
    assert isinstance(judge("h:1", WANTED, Seen(connected=True), NOW_S), TlsFailedError)


def test_who_takes_a_connection_and_says_nothing_shows_nothing_about_certificates() -> None:
    """A frozen controller must not be taken for one without TLS."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        target = f"127.0.0.1:{listener.getsockname()[1]}"
        assert probe(target, ca=b"", within_s=0.1) == Seen(connected=False)
        assert why_not(target, WANTED, within_s=0.1) is None
