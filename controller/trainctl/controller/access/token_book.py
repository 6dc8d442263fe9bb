"""The tokens of an installation: kept in the store without their secrets, known to whoever leads."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace

from trainctl.controller import keys
from trainctl.controller.access.caller import Caller, Grant
from trainctl.controller.access.token import (
    ID_BYTES,
    SECRET_BYTES,
    TokenRecord,
    UnauthenticatedError,
    digest,
    ended,
    parts,
    shows,
    written,
)
from trainctl.controller.leadership import Leadership
from trainctl.controller.store.port import Compare, Delete, KeyValue, Operation, Put, Target
from trainctl.controller.stored import reading
from trainctl.controller.tasks import to_the_end
from trainctl.core.codec import from_wire, to_wire
from trainctl.core.errors import ConflictError, NotFoundError, PreconditionError
from trainctl.core.texts import quoted

MOST_TOKENS = 10_000
"""Of an installation: each call looks its token up in memory."""
KEPT_S = 90 * 24 * 3600.0
"""A token that ended is listed for so long."""


class TokenBook:
    """All tokens. What the leader before made or revoked is known after ``load``.

    Args:
        leadership: written through.
        now_s: Unix seconds.
    """

    def __init__(self, leadership: Leadership, now_s: Callable[[], float]) -> None:
        self._leadership = leadership
        self._now_s = now_s
        self._records: dict[str, TokenRecord] = {}
        self._lock = asyncio.Lock()
        self._listeners: list[Callable[[TokenRecord], None]] = []

    def on_revoked(self, listener: Callable[[TokenRecord], None]) -> None:
        """Registers who is told when a token ends before its time."""
        self._listeners.append(listener)

    def load(self, stored: Sequence[KeyValue]) -> None:
        """Takes in what is in the store."""
        for item in stored:
            with reading(item.key):
                record = from_wire(TokenRecord, keys.decode(item.value))
            self._records[record.id] = record

    def records(self) -> tuple[TokenRecord, ...]:
        """All of them, oldest first."""
        return tuple(sorted(self._records.values(), key=lambda record: (record.created_s, record.id)))

    def caller(self, text: str) -> Caller:
        """Who shows this token.

        Raises:
            UnauthenticatedError: it is none of these, expired or revoked. What was shown is not repeated.
        """
        found = parts(text)
        if found is None:
            raise UnauthenticatedError(
                "the call carries something that is no token: expected tctl_ID_SECRET, or the controller's own",
                hint="is the whole token in the file that --token-file names, and nothing else?",
            )
        id_, secret = found
        record = self._records.get(id_)
        if not shows(record, secret) or record is None:
            raise UnauthenticatedError(
                "the call carries a token that is not known here",
                hint="is it of another installation? `trainctl config explain` shows which file it is from",
            )
        if (over := ended(record, self._now_s())) is not None:
            raise over
        return record.caller()

    async def create(
        self,
        name: str,
        grants: Sequence[Grant],
        *,
        ttl_s: float,
        by: str,
        compares: Sequence[Compare] = (),
        operations: Sequence[Operation] = (),
    ) -> tuple[TokenRecord, str]:
        """A new token, and its text, which is kept nowhere.

        Args:
            name: whom it is for.
            grants: what it allows.
            ttl_s: how long it is good; 0: until it is revoked.
            by: who makes it.
            compares: what must hold.
            operations: written in the same transaction.

        Raises:
            PreconditionError: there are too many.
            ConflictError: a compare does not hold.
        """
        async with self._lock:
            if len(self._records) >= MOST_TOKENS:
                raise PreconditionError(
                    f"there are {len(self._records)} tokens, and there may be {MOST_TOKENS}",
                    hint=f"revoke some; {KEPT_S / 86400:g} days later they are forgotten",
                )
            now_s = self._now_s()
            id_ = next(one for one in iter(lambda: secrets.token_hex(ID_BYTES), "") if one not in self._records)
            secret = secrets.token_hex(SECRET_BYTES)
            record = TokenRecord(
                id=id_,
                name=name,
                sha256=digest(secret),
                grants=tuple(grants),
                created_s=now_s,
                created_by=by,
                expires_s=now_s + ttl_s if ttl_s else 0.0,
            )
            new = Compare(keys.token(id_), Target.MOD_REVISION, 0)
            await to_the_end(self._write(record, (new, *compares), operations))
        return record, written(id_, secret)

    async def revoke(
        self, id_: str, *, compares: Sequence[Compare] = (), operations: Sequence[Operation] = ()
    ) -> TokenRecord:
        """Ends a token now; one that was revoked before stays so, and nothing is written.

        Args:
            id_: of the token.
            compares: what must hold.
            operations: written in the same transaction.

        Raises:
            NotFoundError: there is none.
            ConflictError: a compare does not hold.
        """
        async with self._lock:
            record = self.record(id_)
            if not record.revoked_s:
                record = replace(record, revoked_s=self._now_s())
                await to_the_end(self._write(record, compares, operations))
                for listener in self._listeners:
                    listener(record)
            return record

    def record(self, id_: str) -> TokenRecord:
        """The token of this id.

        Raises:
            NotFoundError: there is none.
        """
        if id_ not in self._records:
            raise NotFoundError(f"no token {quoted(id_)}", hint="`trainctl tokens list` lists them")
        return self._records[id_]

    async def _write(self, record: TokenRecord, compares: Sequence[Compare], operations: Sequence[Operation]) -> None:
        """Also forgets a few of those that ended long ago."""
        long_ago_s = self._now_s() - KEPT_S
        old = [one.id for one in self.records() if one.id != record.id and one.ended_by(long_ago_s)][:20]
        put = Put(keys.token(record.id), keys.encode(to_wire(record)))
        result = await self._leadership.txn(compares, (put, *operations, *(Delete(keys.token(id_)) for id_ in old)))
        if not result.succeeded:
            raise ConflictError("this request came twice at the same moment", hint="`trainctl tokens list` shows which")
        self._records[record.id] = record
        for id_ in old:
            del self._records[id_]
