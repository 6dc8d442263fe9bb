"""What is written down of a call. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from trainctl.controller.access.caller import Caller

UNKNOWN = "UNKNOWN"
"""Outcome of a call that the controller did not live to see the end of."""
UNREADABLE = "UNREADABLE"
"""Stands for a record whose bytes are damaged."""
_LONGEST = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """A change that was asked for, or a call that was refused; the fields are those of the message of this name."""

    number: int = 0
    time_s: float = 0.0
    epoch: int = 0
    kind: str = ""
    name: str = ""
    token_id: str = ""
    peer: str = ""
    method: str = ""
    tenant: str = ""
    subject: str = ""
    request_id: str = ""
    outcome: str = ""
    reason: str = ""
    done_s: float = 0.0
    left_out: int = 0


def draft(
    caller: Caller, *, peer: str, method: str, tenant: str = "", subject: str = "", request_id: str = ""
) -> AuditRecord:
    """A record of a call: who, from where, what. Texts that came with the call are shortened."""
    return AuditRecord(
        kind=caller.kind,
        name=caller.name,
        token_id=caller.token_id,
        peer=address_of(peer),
        method=method.rpartition("/")[2],
        tenant=_short(tenant),
        subject=_short(subject),
        request_id=_short(request_id),
    )


def address_of(peer: str) -> str:
    """``host:port`` of what gRPC calls a peer, such as ``ipv4:10.0.0.1:3345`` or ``ipv6:%5B::1%5D:3345``."""
    kind, _, rest = peer.partition(":")
    return rest.replace("%5B", "[").replace("%5D", "]") if kind in ("ipv4", "ipv6") else peer[:_LONGEST]


def host_of(peer: str) -> str:
    """The same without the port."""
    return address_of(peer).rpartition(":")[0] or peer[:_LONGEST]


def _short(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text[:_LONGEST])
