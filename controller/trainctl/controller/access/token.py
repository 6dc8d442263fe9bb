"""A token for somebody: its form, its record, and whether it is good. Pure."""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass

from trainctl.controller.access.caller import Caller, Grant, Kind
from trainctl.core.errors import PermissionDeniedError
from trainctl.core.units import format_time

_FORM = re.compile(r"tctl_([0-9a-f]{8})_([0-9a-f]{48})")
FORM = "tctl_ID_SECRET"
ID_BYTES, SECRET_BYTES = 4, 24


class UnauthenticatedError(PermissionDeniedError):
    """The call has no token, or not one that is good here."""

    code = "UNAUTHENTICATED"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRecord:
    """What is kept of a token; its secret is not.

    Attributes:
        id: part of the token that is no secret.
        name: of whom it is for.
        sha256: of the secret.
        grants: what it allows.
        created_s: Unix time.
        created_by: who made it.
        expires_s: Unix time at which it ends; 0: never.
        revoked_s: Unix time at which it was revoked; 0: it was not.
    """

    id: str
    name: str
    sha256: str
    grants: tuple[Grant, ...] = ()
    created_s: float = 0.0
    created_by: str = ""
    expires_s: float = 0.0
    revoked_s: float = 0.0

    def caller(self) -> Caller:
        """Who shows it."""
        return Caller(kind=Kind.PERSON, name=self.name, token_id=self.id, grants=self.grants, expires_s=self.expires_s)

    def ended_by(self, time_s: float) -> bool:
        """Whether it was over or revoked then."""
        return 0 < self.revoked_s <= time_s or 0 < self.expires_s <= time_s


def written(id_: str, secret: str) -> str:
    """The token as a person keeps it."""
    return f"tctl_{id_}_{secret}"


def parts(text: str) -> tuple[str, str] | None:
    """Id and secret; None if it is no token of this form."""
    match = _FORM.fullmatch(text)
    return (match[1], match[2]) if match is not None else None


def digest(secret: str) -> str:
    """What is kept of a secret: it has 192 random bits, so a plain hash cannot be searched."""
    return hashlib.sha256(b"trainctl token\0" + secret.encode()).hexdigest()


def shows(record: TokenRecord | None, secret: str) -> bool:
    """Whether this is the record's secret; takes as long where there is no record."""
    expected = record.sha256 if record is not None else "0" * 64
    return hmac.compare_digest(digest(secret), expected) and record is not None


def ended(record: TokenRecord, now_s: float) -> UnauthenticatedError | None:
    """Why a token whose secret was shown may no longer be used, and since when; None if it may."""
    who = f"the token {record.id} of {record.name}"
    if record.revoked_s:
        return UnauthenticatedError(
            f"{who} was revoked at {format_time(record.revoked_s)}", hint="ask an admin for a new one"
        )
    if 0 < record.expires_s <= now_s:
        return UnauthenticatedError(
            f"{who} expired at {format_time(record.expires_s)}",
            hint="ask an admin for a new one: trainctl tokens create",
        )
    return None
