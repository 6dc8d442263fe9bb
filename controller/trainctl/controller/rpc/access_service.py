"""``AccessService``: tokens for people, and the audit log."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

from trainctl.controller.access.audit_log import AuditLog
from trainctl.controller.access.audit_record import AuditRecord
from trainctl.controller.access.caller import ALL_TENANTS, Grant, Kind, Role, calling
from trainctl.controller.access.token import TokenRecord
from trainctl.controller.access.token_book import TokenBook
from trainctl.controller.jobs.requests import RequestLog, digest_of
from trainctl.controller.rpc.pages import DEFAULT_SIZE, MAX_SIZE
from trainctl.core.codec import to_wire
from trainctl.core.errors import ConflictError, NotFoundError, UsageError
from trainctl.core.texts import quoted, shortened
from trainctl.core.units import format_count
from trainctl.protos.convert import record_to_message
from trainctl.protos.v1 import access_pb2, access_pb2_grpc

LONGEST_TTL_S = 10 * 365 * 86400.0
MOST_GRANTS = 32
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,62}")
_RESERVED = tuple(Kind)
_PAGE = 500

Context = Any
"""``grpc.aio.ServicerContext`` of whatever call."""


class AccessService(access_pb2_grpc.AccessServiceServicer):
    """Shows and changes only what the caller is an admin of.

    Args:
        tokens: of the installation.
        audit: who asked for what.
        requests: which requests took effect.
    """

    def __init__(self, tokens: TokenBook, audit: AuditLog, requests: RequestLog) -> None:
        self._tokens = tokens
        self._audit = audit
        self._requests = requests

    async def WhoAmI(self, request: access_pb2.WhoAmIRequest, context: Context) -> access_pb2.WhoAmIResponse:  # noqa: N802
        """Who the caller is, and what it may."""
        caller = calling()
        grants = [access_pb2.Grant(tenant=grant.tenant, role=grant.role) for grant in caller.grants]
        return access_pb2.WhoAmIResponse(
            kind=caller.kind,
            name=caller.name,
            token_id=caller.token_id,
            grants=grants,
            expires_s=caller.expires_s,
            home_tenant=caller.home_tenant,
        )

    async def CreateToken(  # noqa: N802
        self, request: access_pb2.CreateTokenRequest, context: Context
    ) -> access_pb2.CreateTokenResponse:
        """A new token; its text is in this answer only, so a request that comes again is refused."""
        problems = list(_problems(request))
        if problems:
            raise UsageError("; ".join(problems), hint="`trainctl tokens create --help` shows examples")
        grants = tuple(Grant(grant.tenant, Role(grant.role)) for grant in request.grants)
        body = access_pb2.CreateTokenRequest()
        body.CopyFrom(request)
        body.request_id = ""
        digest = digest_of("CreateToken", body.SerializeToString(deterministic=True))
        made = await self._requests.find(ALL_TENANTS, request.request_id, digest)
        if made is not None:
            raise ConflictError(
                f"this request made the token of {made} before, and its text was in that answer only",
                hint="`trainctl tokens list` shows it: revoke it, and create another one under a new request id",
            )
        compares, operations = await self._requests.note(
            ALL_TENANTS, request.request_id, digest, method="CreateToken", subject=request.name
        )
        record, text = await self._tokens.create(
            request.name, grants, ttl_s=request.ttl_s, by=str(calling()), compares=compares, operations=operations
        )
        return access_pb2.CreateTokenResponse(token=_message(record), secret=text)

    async def ListTokens(  # noqa: N802
        self, request: access_pb2.ListTokensRequest, context: Context
    ) -> access_pb2.ListTokensResponse:
        """Tokens that the caller could have made, oldest first."""
        return access_pb2.ListTokensResponse(tokens=[_message(one) for one in self._tokens.records() if _rules(one)])

    async def RevokeToken(  # noqa: N802
        self, request: access_pb2.RevokeTokenRequest, context: Context
    ) -> access_pb2.RevokeTokenResponse:
        """Ends a token, and the streams that it holds open; asking again changes nothing."""
        if not request.id:
            raise UsageError("id: expected the id of a token, found nothing", hint="`trainctl tokens list` lists them")
        if not _rules(self._tokens.record(request.id)):
            raise NotFoundError(f"no token {quoted(request.id)}", hint="`trainctl tokens list` lists them")
        digest = digest_of("RevokeToken", request.id.encode())
        if await self._requests.find(ALL_TENANTS, request.request_id, digest) is not None:
            return access_pb2.RevokeTokenResponse(token=_message(self._tokens.record(request.id)))
        compares, operations = await self._requests.note(
            ALL_TENANTS, request.request_id, digest, method="RevokeToken", subject=request.id
        )
        revoked = await self._tokens.revoke(request.id, compares=compares, operations=operations)
        return access_pb2.RevokeTokenResponse(token=_message(revoked))

    async def ListAudit(self, request: access_pb2.ListAuditRequest, context: Context) -> access_pb2.ListAuditResponse:  # noqa: N802
        """What was asked for in the tenants that the caller is an admin of, oldest first."""
        if not 0 <= request.limit <= MAX_SIZE or request.after < 0:
            raise UsageError(f"limit: expected 0 to {MAX_SIZE}, and after: 0 or more")
        await self._audit.flush()
        limit, after, more = request.limit or DEFAULT_SIZE, request.after, True
        found: list[AuditRecord] = []
        while more and len(found) < limit:
            records, more = await self._audit.read(after=after, limit=_PAGE)
            for record in records:
                after = record.number
                if _asked_for(record, request):
                    found.append(record)
                    if len(found) == limit:
                        more = more or record is not records[-1]
                        break
        messages = [record_to_message(record, access_pb2.AuditRecord) for record in found]
        return access_pb2.ListAuditResponse(records=messages, next_after=after if more else 0)


def _asked_for(record: AuditRecord, request: access_pb2.ListAuditRequest) -> bool:
    may = calling().may(Role.ADMIN, record.tenant or ALL_TENANTS)
    who = not request.who or request.who in (record.name, record.token_id)
    return may and who and record.time_s >= request.since_s and request.subject in ("", record.subject)


def _rules(record: TokenRecord) -> bool:
    """Whether the caller is an admin of everything that a token is good for."""
    return all(calling().may(Role.ADMIN, grant.tenant) for grant in record.grants)


def _message(record: TokenRecord) -> access_pb2.Token:
    wire = to_wire(record)
    del wire["sha256"]
    return record_to_message(wire, access_pb2.Token)


def _problems(request: access_pb2.CreateTokenRequest) -> Iterator[str]:
    if not _NAME.fullmatch(request.name) or request.name in _RESERVED:
        yield (
            "name: expected letters, digits and . _ @ -, at most 63, and none of "
            f'{", ".join(_RESERVED)}, found "{shortened(request.name)}"'
        )
    if not math.isfinite(request.ttl_s) or not 0 <= request.ttl_s <= LONGEST_TTL_S:
        yield f"ttl_s: expected seconds from 0 (no end) to {LONGEST_TTL_S:g}, found {request.ttl_s:g}"
    if not 1 <= len(request.grants) <= MOST_GRANTS:
        yield f"grants: expected 1 to {MOST_GRANTS}, found {format_count(len(request.grants), 'grant')}"
    for grant in request.grants:
        if grant.role not in tuple(Role):
            yield f'role: expected {", ".join(Role)}, found "{shortened(grant.role)}"'
    tenants = [grant.tenant for grant in request.grants]
    if len(set(tenants)) != len(tenants):
        yield "grants: a tenant is named twice"
