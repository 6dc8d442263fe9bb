"""Join tokens, and whether one lets a machine in: decided from data and a time alone.

Only a digest of the secret is kept. A node that holds a certificate which has not expired is not taken over by another
machine unless somebody made a token for just this node.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, replace

from trainctl.core.errors import PermissionDeniedError, UsageError
from trainctl.core.ids import NODE_NAME, is_node_name
from trainctl.core.texts import quoted
from trainctl.core.units import format_time

ANY_NUMBER = -1
MAX_USES = 10_000
MIN_TTL_S, MAX_TTL_S = 1.0, 30 * 86400.0
_MAKE = "`trainctl nodes join-token` makes a new one"


class JoinRefusedError(PermissionDeniedError):
    """The join token lets this machine not in."""

    code = "JOIN_REFUSED"


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinToken:
    """A join token as it is kept.

    Attributes:
        id: its public part.
        digest: SHA-256 of its secret, hexadecimal.
        node: the only node that it is good for; empty: any that holds no certificate.
        created_s: Unix time.
        expires_s: Unix time; 0: never.
        uses_left: how many more nodes can join with it; ``ANY_NUMBER``.
        revoked: somebody took it back.
    """

    id: str
    digest: str
    node: str = ""
    created_s: float = 0.0
    expires_s: float = 0.0
    uses_left: int = 1
    revoked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """The newest certificate of a node.

    Attributes:
        node: whose it is.
        key: digest of its public key: only the holder of this key is the node.
        ends_s: Unix time at which it expires.
        token: id of the join token that it was first got with.
    """

    node: str
    key: str
    ends_s: float
    token: str = ""


def digest(secret: str) -> str:
    """What is kept of a secret."""
    return hashlib.sha256(b"trainctl join token\0" + secret.encode()).hexdigest()


def check_wish(node: str, ttl_s: float, uses: int) -> None:
    """Raises: UsageError: nobody can have such a token."""
    if node and not is_node_name(node):
        raise UsageError(f"node: expected {NODE_NAME}; found {quoted(node)}", hint="for example --node gpu-17")
    if not MIN_TTL_S <= ttl_s <= MAX_TTL_S:
        raise UsageError(f"ttl_s: expected 1s to 30 days, found {ttl_s:g} s", hint="for example --ttl 1h")
    if not 1 <= uses <= MAX_USES:
        raise UsageError(f"uses: expected 1 to {MAX_USES}, found {uses}", hint="for example --uses 8")
    if node and uses != 1:
        raise UsageError(
            f"uses: a token for {node} alone is used once, found {uses}", hint="leave out --uses or --node"
        )


def admit(
    token: JoinToken | None, secret: str, *, node: str, key: str, held: Held | None, now_s: float
) -> JoinToken | None:
    """Whether a machine becomes ``node``; returns the token as it is after that, None if it does not change.

    A machine that asks again, as its answer was lost, is told by its key, and uses nothing up.

    Args:
        token: as it is kept; None if there is none of that id.
        secret: that came along.
        node: what it wants to be.
        key: digest of its public key.
        held: the newest certificate of that node.
        now_s: Unix time.

    Raises:
        JoinRefusedError: it does not; says why.
    """
    if token is None or not hmac.compare_digest(token.digest, digest(secret)):
        raise JoinRefusedError("the join token is not known here", hint=f"is it another installation's? {_MAKE}")
    if token.revoked:
        raise JoinRefusedError(f"the join token {token.id} was revoked", hint=_MAKE)
    if token.expires_s and now_s >= token.expires_s:
        raise JoinRefusedError(
            f"the join token {token.id} expired at {format_time(token.expires_s)}; it is now {format_time(now_s)}",
            hint=_MAKE,
        )
    if token.node and token.node != node:
        raise JoinRefusedError(
            f"the join token {token.id} is for node {token.node}, this machine wants to be {node}",
            hint=f"start the agent with --node {token.node}, or: trainctl nodes join-token --node {node}",
        )
    own = held is not None and held.key == key
    if own and held is not None and held.token == token.id:
        return None
    if token.uses_left == 0:
        raise JoinRefusedError(f"the join token {token.id} is used up", hint=f"{_MAKE}; --uses lets more nodes join")
    if held is not None and not own and now_s < held.ends_s and not token.node:
        raise JoinRefusedError(
            f"node {node} holds a certificate until {format_time(held.ends_s)}, and this machine is not the one that "
            "got it",
            hint="give this machine another name; or, if it takes that one's place: "
            f"trainctl nodes join-token --node {node}",
        )
    return replace(token, uses_left=token.uses_left - 1) if token.uses_left != ANY_NUMBER else None
