"""Request ids: what was asked under one has its effect once, however often it comes (control-plane reference 2.9)."""

from __future__ import annotations

import hashlib

from trainctl.controller import keys
from trainctl.controller.store.port import Compare, Put, StateStore, Target
from trainctl.core.errors import UsageError
from trainctl.core.ids import MAX_REQUEST_ID
from trainctl.core.texts import shortened

REQUEST_KEPT_S = 24 * 3600.0


class RequestIdReusedError(UsageError):
    """A request id came again with another body."""

    code = "REQUEST_ID_REUSED"


def digest_of(method: str, body: bytes) -> str:
    """What tells two requests under one id apart."""
    return hashlib.sha256(method.encode() + b"\0" + body).hexdigest()


class RequestLog:
    """Which requests took effect, and on what; each is kept for ``REQUEST_KEPT_S`` seconds."""

    def __init__(self, store: StateStore) -> None:
        self._store = store

    async def find(self, tenant: str, request_id: str, digest: str) -> str | None:
        """What this request took effect on: the uid of a job, or the name of a node; None if it is new.

        Raises:
            RequestIdReusedError: the id was used for another request.
            UsageError: it is too long.
        """
        if len(request_id) > MAX_REQUEST_ID:
            raise UsageError(
                f"request id: expected at most {MAX_REQUEST_ID} characters, found {len(request_id)}",
                hint="a UUID will do; whoever gives none gets one",
            )
        found = await self._store.get(keys.request(tenant, request_id)) if request_id else None
        if found is None:
            return None
        record = keys.decode(found.value)
        if record["digest"] != digest:
            raise RequestIdReusedError(
                f"request id {shortened(request_id)} was used for another request before",
                hint="use a new request id for a new request",
            )
        return str(record["uid"])

    async def note(
        self, tenant: str, request_id: str, digest: str, *, method: str, subject: str
    ) -> tuple[tuple[Compare, ...], tuple[Put, ...]]:
        """What the transaction of the effect has to compare and to write; nothing for a request without an id."""
        if not request_id:
            return (), ()
        key = keys.request(tenant, request_id)
        record = keys.encode({"method": method, "digest": digest, "uid": subject})
        lease = await self._store.lease_grant(REQUEST_KEPT_S)
        return (Compare(key, Target.VERSION, 0),), (Put(key, record, lease),)
