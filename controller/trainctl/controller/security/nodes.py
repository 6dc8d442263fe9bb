"""Which machine is which node: join tokens and the keys of nodes in the store, certificates for those that may."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from trainctl.controller import keys
from trainctl.controller.access.token import UnauthenticatedError
from trainctl.controller.leadership import Leadership
from trainctl.controller.security.authority import Authority
from trainctl.controller.security.csr import read_request
from trainctl.controller.security.join_tokens import (
    ANY_NUMBER,
    Held,
    JoinToken,
    admit,
    check_wish,
    digest,
)
from trainctl.controller.security.peer import Peer, agent_uri, key_digest, peer_of
from trainctl.controller.store.port import Delete, KeyValue, Operation, Put, StateStore
from trainctl.controller.stored import reading
from trainctl.core.codec import from_wire, to_wire
from trainctl.core.errors import NotFoundError, UsageError
from trainctl.core.ids import NODE_NAME, is_node_name
from trainctl.core.join_token import JoinText
from trainctl.core.texts import quoted
from trainctl.core.units import format_time

FORGOTTEN_S = 7 * 86400.0
"""How long a token that lets nobody in any more is still shown."""
_MAX_REMOVED = 50


class CertificateRefusedError(UnauthenticatedError):
    """The agent's certificate is not (any more) that of its node."""

    code = "CERTIFICATE_REFUSED"


class NodeCertificates:
    """Lets machines in, and tells them apart. Only the leader does: what it has read or written is what holds.

    Args:
        store: with tokens and keys.
        leadership: every change takes it.
        authority: signs.
        installation: its name, for the names of its agents.
        wall_s: Unix time of this machine's clock, which certificates are compared with.
        life_s: of an agent's certificate.
    """

    def __init__(
        self, store: StateStore, leadership: Leadership, authority: Authority, *, installation: str,
        wall_s: Callable[[], float], life_s: float,
    ) -> None:  # fmt: skip
        self._store = store
        self._leadership = leadership
        self._installation = installation
        self._wall_s = wall_s
        self._life_s = life_s
        self._held: dict[str, Held] = {}
        self._turn = asyncio.Lock()
        self.authority = authority

    async def load(self) -> None:
        """Takes in which key is which node's."""
        items = (await self._store.range(keys.CERTIFICATES)).items
        self._held = {held.node: held for item in items if (held := _held(item)) is not None}

    async def join(self, node: str, request: bytes, credential: str) -> bytes:
        """A certificate (PEM) for a machine that shows ``ID.SECRET`` of a join token.

        Raises:
            UsageError: the name or the request is none.
            JoinRefusedError: the token does not let it in.
        """
        if not is_node_name(node):
            raise UsageError(f"node: expected {NODE_NAME}; found {quoted(node)}", hint="give another one with --node")
        key = read_request(request, node)
        own = key_digest(key)
        id_, _, secret = credential[:1000].partition(".")
        async with self._turn:
            # As it is in the store: of a write without an answer nobody here knows whether it took effect.
            token, held = await self._token(id_), _held(await self._store.get(keys.certificate(node)))
            now_s = self._wall_s()
            rest = admit(token, secret, node=node, key=own, held=held, now_s=now_s)
            taken = Held(node=node, key=own, ends_s=now_s + self._life_s, token=id_)
            await self._write(taken, *(() if rest is None else (_put(rest),)))
        return self.authority.for_node(key, node, self._uri(node), now_s, self._life_s)

    async def renew(self, peer: Peer, request: bytes) -> bytes:
        """A new certificate (PEM) for the holder of one.

        Raises:
            UsageError: the request is none.
            CertificateRefusedError: it is for another key, or this is no longer the node's.
        """
        self.check(peer)
        key = read_request(request, peer.node)
        if key_digest(key) != peer.key:
            raise CertificateRefusedError(
                f"node {peer.node}: the request is for another key than that of the certificate in use",
                hint="a new key takes a join token: trainctl nodes join-token",
            )
        async with self._turn:
            held, now_s = self.check(peer), self._wall_s()
            await self._write(replace(held, ends_s=now_s + self._life_s))
        return self.authority.for_node(key, peer.node, self._uri(peer.node), now_s, self._life_s)

    def check(self, peer: Peer) -> Held:
        """Sees that a certificate is the node's at this moment.

        Raises:
            CertificateRefusedError: it is not.
        """
        held = self._held.get(peer.node)
        if held is None or held.key != peer.key:
            why = "this controller never let that key in" if held is None else "another machine has taken its place"
            raise CertificateRefusedError(
                f"node {peer.node}: its certificate is good, but {why}",
                hint=f"join again: trainctl nodes join-token --node {peer.node}",
            )
        if self.left_s(peer.ends_s) <= 0:
            raise CertificateRefusedError(
                f"node {peer.node}: its certificate expired at {format_time(peer.ends_s)}; it is now "
                f"{format_time(self._wall_s())}",
                hint="is one of the clocks wrong? else the agent joins again, with a join token",
            )
        return held

    def peer(self, auth_context: Mapping[str, Iterable[bytes]]) -> Peer:
        """The node at the other end of a connection.

        Raises:
            UnauthenticatedError: the certificate names no node.
            CertificateRefusedError: it is not, or no longer, its node's.
        """
        peer = peer_of(auth_context)
        if peer is None:
            raise UnauthenticatedError(
                "the connection's certificate names no node of an installation of trainctl",
                hint="agents get theirs by joining: trainctl nodes join-token",
            )
        self.check(peer)
        return peer

    def left_s(self, ends_s: float) -> float:
        """Seconds until a certificate expires that does so at a Unix time."""
        return ends_s - self._wall_s()

    async def create_token(self, *, node: str = "", ttl_s: float, uses: int = 1) -> tuple[JoinToken, str]:
        """A new join token, and the text that goes to the machine.

        Raises:
            UsageError: nobody can have such a token.
        """
        check_wish(node, ttl_s, uses)
        now_s, id_, secret = self._wall_s(), secrets.token_hex(4), secrets.token_urlsafe(24)
        token = JoinToken(
            id=id_, digest=digest(secret), node=node, created_s=now_s, expires_s=now_s + ttl_s, uses_left=uses
        )
        known = await self.tokens()
        stale = [Delete(keys.join_token(old.id)) for old in known if 0 < old.expires_s < now_s - FORGOTTEN_S]
        await self._leadership.txn((), (_put(token), *stale[:_MAX_REMOVED]))
        return token, self._text(token, secret)

    async def local_token(self, node: str, index: int) -> str:
        """The text for an agent that this controller starts itself; replaces the one of an earlier life."""
        id_, secret = f"local{index}", secrets.token_urlsafe(24)
        token = JoinToken(id=id_, digest=digest(secret), node=node, created_s=self._wall_s(), uses_left=ANY_NUMBER)
        await self._leadership.txn((), (_put(token),))
        return self._text(token, secret)

    async def tokens(self) -> list[JoinToken]:
        """All that are known, by id."""
        items = (await self._store.range(keys.JOIN_TOKENS)).items
        return [token for item in items if (token := _token(item)) is not None]

    async def revoke(self, id_: str) -> JoinToken:
        """Nobody joins with it any more; nodes that did stay.

        Raises:
            NotFoundError: there is none.
        """
        async with self._turn:
            token = await self._token(id_)
            if token is None:
                raise NotFoundError(f"no join token {quoted(id_)}", hint="`trainctl nodes join-tokens` lists them")
            revoked = replace(token, revoked=True)
            await self._leadership.txn((), (_put(revoked),))
        return revoked

    async def _write(self, held: Held, *more: Operation) -> None:
        put = Put(keys.certificate(held.node), keys.encode(to_wire(held)))
        await self._leadership.txn((), (put, *more))
        self._held[held.node] = held

    async def _token(self, id_: str) -> JoinToken | None:
        known = id_.isascii() and id_.isalnum()
        return _token(await self._store.get(keys.join_token(id_))) if known else None

    def _uri(self, node: str) -> str:
        return agent_uri(self._installation, node)

    def _text(self, token: JoinToken, secret: str) -> str:
        return str(JoinText(self.authority.der, f"{token.id}.{secret}"))


def _token(entry: KeyValue | None) -> JoinToken | None:
    if entry is None:
        return None
    with reading(entry.key):
        return from_wire(JoinToken, keys.decode(entry.value))


def _held(entry: KeyValue | None) -> Held | None:
    if entry is None:
        return None
    with reading(entry.key):
        return from_wire(Held, keys.decode(entry.value))


def _put(token: JoinToken) -> Put:
    return Put(keys.join_token(token.id), keys.encode(to_wire(token)))
