"""Without it a token could let in more nodes than it says, or one node silently take another's place."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trainctl.controller import keys
from trainctl.controller.access.token import UnauthenticatedError
from trainctl.controller.leadership import Candidate, Leadership
from trainctl.controller.security.authority import Authority, open_authority
from trainctl.controller.security.join_tokens import Held, JoinRefusedError, JoinToken, admit, check_wish, digest
from trainctl.controller.security.nodes import CertificateRefusedError, NodeCertificates
from trainctl.controller.security.peer import Peer, peer_of
from trainctl.controller.store.opening import StoreAddress
from trainctl.controller.store.port import StateStore
from trainctl.core.errors import NotFoundError, UsageError
from trainctl.core.join_token import JoinText, read_join_text
from unit.controller.controller_harness import run
from unit.security.certificates import at, new_key, request_of

NOW_S = at("2026-01-31T12:00:00")
SECRET = "s" * 32
TOKEN = JoinToken(id="ab12", digest=digest(SECRET), expires_s=NOW_S + 60)


def refused(token: JoinToken | None, **changes: Any) -> str:
    given: dict[str, Any] = {"secret": SECRET, "node": "n", "key": "k", "held": None, "now_s": NOW_S, **changes}
    with pytest.raises(JoinRefusedError) as error:
        admit(token, given.pop("secret"), **given)
    assert SECRET not in str(error.value)
    return str(error.value)


def test_a_token_lets_in_as_often_as_it_says() -> None:
    token: JoinToken | None = replace(TOKEN, uses_left=3)
    for left in (2, 1, 0):
        token = admit(token, SECRET, node=f"n{left}", key=f"k{left}", held=None, now_s=NOW_S)
        assert token is not None
        assert token.uses_left == left
    assert "is used up" in refused(token)
    endless = replace(TOKEN, uses_left=-1, expires_s=0.0)
    assert admit(endless, SECRET, node="n", key="k", held=None, now_s=NOW_S * 2) is None


def test_each_refusal_has_its_own_sentence() -> None:
    assert "not known here" in refused(None)
    assert "not known here" in refused(TOKEN, secret="t" * 32)
    assert "was revoked" in refused(replace(TOKEN, revoked=True))
    assert "expired at 2026-01-31 12:01:00 UTC; it is now 2026-01-31 12:01:00 UTC" in refused(TOKEN, now_s=NOW_S + 60)
    assert "is for node gpu-1, this machine wants to be n" in refused(replace(TOKEN, node="gpu-1"))


def test_a_node_is_not_taken_over_in_silence() -> None:
    held = Held(node="n", key="other", ends_s=NOW_S + 10, token="zz")
    assert "holds a certificate until 2026-01-31 12:00:10 UTC" in refused(TOKEN, held=held)
    # It may be: the certificate has expired; it is the same machine; or somebody named just this node.
    ask = {"node": "n", "key": "k", "now_s": NOW_S}
    for token, before in (
        (TOKEN, replace(held, ends_s=NOW_S)),
        (TOKEN, replace(held, key="k")),
        (replace(TOKEN, node="n"), held),
    ):
        rest = admit(token, SECRET, held=before, **ask)  # type: ignore[arg-type]
        assert rest is not None
        assert rest.uses_left == 0


def test_asking_again_uses_nothing_up() -> None:
    held = Held(node="n", key="k", ends_s=NOW_S + 10, token=TOKEN.id)
    assert admit(replace(TOKEN, uses_left=0), SECRET, node="n", key="k", held=held, now_s=NOW_S) is None


@pytest.mark.parametrize(
    ("node", "ttl_s", "uses", "words"),
    [("a/b", 60, 1, "node: expected"), ("", 0.5, 1, "ttl_s"), ("", 1e9, 1, "ttl_s"), ("", 60, 0, "uses"),
     ("", 60, 10**6, "uses"), ("n", 60, 2, "used once"), ("", float("nan"), 1, "ttl_s")],
)  # fmt: skip
def test_tokens_that_nobody_can_have(node: str, ttl_s: float, uses: int, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        check_wish(node, ttl_s, uses)


def test_the_text_carries_the_authority_and_shows_no_secret(tmp_path: Path) -> None:
    authority = open_authority(tmp_path, NOW_S)
    text = JoinText(authority.der, f"ab12.{SECRET}")
    assert read_join_text(f" {text}\n") == text
    assert read_join_text(str(text)).authority_pem == authority.pem
    assert SECRET not in repr(text)
    noise = random.Random(3)
    for wrong in ("", "tctl_ab_cd", str(text)[:-40], str(text).replace("tctl-join", "tctl"), "x" * 10**6):
        with pytest.raises(ValueError, match=r"expected tctl-join:AUTHORITY:ID\.SECRET") as error:
            read_join_text(wrong)
        assert SECRET not in str(error.value)
    for _ in range(100):
        length = noise.randint(0, 60)
        with pytest.raises(ValueError, match="expected tctl-join"):
            read_join_text("tctl-join:" + "".join(chr(noise.randint(32, 255)) for _ in range(length)))


class Clock:
    def __init__(self) -> None:
        self.now_s = NOW_S

    def __call__(self) -> float:
        return self.now_s


async def opened(store: StateStore, authority: Authority, clock: Clock) -> NodeCertificates:
    leadership = await Leadership.take(store, Candidate(holder="test"))
    nodes = NodeCertificates(store, leadership, authority, installation="i", wall_s=clock, life_s=100)
    await nodes.load()
    return nodes


def shown(pem: bytes) -> Peer:
    peer = peer_of({"x509_pem_cert": [pem]})
    assert peer is not None
    return peer


def with_nodes(
    tmp_path: Path, body: Callable[[NodeCertificates, Clock, StateStore, Authority], Awaitable[None]]
) -> None:
    async def main() -> None:
        store = await StoreAddress(tmp_path / "store").open(on_request=lambda op, seconds: None)
        clock = Clock()
        authority = open_authority(tmp_path / "tls", NOW_S)
        try:
            await body(await opened(store, authority, clock), clock, store, authority)
        finally:
            await store.close()

    run(main)


def test_joining_renewing_and_being_replaced(tmp_path: Path) -> None:
    async def body(nodes: NodeCertificates, clock: Clock, store: StateStore, authority: Authority) -> None:
        _, text = await nodes.create_token(ttl_s=60)
        key = new_key()
        credential = read_join_text(text).credential
        first = shown(await nodes.join("n", request_of(key, "n"), credential))
        assert (first.node, first.ends_s) == ("n", NOW_S + 100)
        nodes.check(first)
        assert (await nodes.tokens())[0].uses_left == 0
        stored = (await store.range(keys.ROOT)).items
        assert all(credential.partition(".")[2].encode() not in item.value for item in stored)

        clock.now_s += 70  # the token has expired; renewing needs none
        second = shown(await nodes.renew(first, request_of(key, "n")))
        assert second.ends_s == NOW_S + 170
        with pytest.raises(CertificateRefusedError, match="another key"):
            await nodes.renew(second, request_of(new_key(), "n"))
        clock.now_s = NOW_S + 170
        with pytest.raises(CertificateRefusedError, match="its certificate expired at 2026-01-31 12:02:50 UTC"):
            nodes.check(second)
        with pytest.raises(JoinRefusedError, match="expired"):
            await nodes.join("n", request_of(key, "n"), credential)

        _, text = await nodes.create_token(node="n", ttl_s=60)
        third = shown(await nodes.join("n", request_of(new_key(), "n"), read_join_text(text).credential))
        with pytest.raises(CertificateRefusedError, match="another machine has taken its place"):
            nodes.check(replace(second, ends_s=NOW_S + 1000))
        heir = await opened(store, authority, clock)  # the next leader knows it as well
        heir.check(third)
        with pytest.raises(CertificateRefusedError, match="never let that key in"):
            heir.check(replace(third, node="m"))

    with_nodes(tmp_path, body)


def test_tokens_are_listed_revoked_and_forgotten(tmp_path: Path) -> None:
    async def body(nodes: NodeCertificates, clock: Clock, store: StateStore, authority: Authority) -> None:
        token, text = await nodes.create_token(ttl_s=60, uses=3)
        await nodes.revoke(token.id)
        with pytest.raises(JoinRefusedError, match="revoked"):
            await nodes.join("n", request_of(new_key(), "n"), read_join_text(text).credential)
        for id_ in ("nothing", "", "../x", "ö"):
            with pytest.raises(NotFoundError):
                await nodes.revoke(id_)
        for credential in ("", ".", "a.b", "../../leader.x", f"{token.id}.", "x" * 10**5):
            with pytest.raises(JoinRefusedError, match="not known here"):
                await nodes.join("n", request_of(new_key(), "n"), credential)
        for name in ("", "a/b", "x" * 300, "-a", "a\nb"):
            with pytest.raises(UsageError, match="node: expected"):
                await nodes.join(name, request_of(new_key()), read_join_text(text).credential)
        clock.now_s += 8 * 86400
        other, _ = await nodes.create_token(ttl_s=60)
        assert [one.id for one in await nodes.tokens()] == [other.id]

    with_nodes(tmp_path, body)


def test_the_own_agents_token_is_one_a_node_and_the_newest(tmp_path: Path) -> None:
    async def body(nodes: NodeCertificates, clock: Clock, store: StateStore, authority: Authority) -> None:
        former = read_join_text(await nodes.local_token("node-0", 0)).credential
        newest = read_join_text(await nodes.local_token("node-0", 0)).credential
        key = new_key()
        with pytest.raises(JoinRefusedError):
            await nodes.join("node-0", request_of(key), former)
        with pytest.raises(JoinRefusedError, match="is for node node-0"):
            await nodes.join("node-1", request_of(key), newest)
        for _ in range(2):  # an agent whose folder was emptied is still the controller's own
            nodes.check(shown(await nodes.join("node-0", request_of(new_key()), newest)))
        assert len(await nodes.tokens()) == 1

    with_nodes(tmp_path, body)


def test_a_certificate_without_a_node_is_nobodys(tmp_path: Path) -> None:
    async def body(nodes: NodeCertificates, clock: Clock, store: StateStore, authority: Authority) -> None:
        server = authority.for_server(["localhost"], NOW_S, 60)
        with pytest.raises(UnauthenticatedError, match="names no node"):
            nodes.peer({"x509_pem_cert": [server.chain]})

    with_nodes(tmp_path, body)
