"""Open streams of callers: how many, and their end when the token that opened them ends."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from trainctl.controller.access.caller import Caller
from trainctl.controller.access.limits import Limits, RateLimitedError
from trainctl.controller.access.token import TokenRecord, UnauthenticatedError, ended

_AGAIN_S = 1.0


@dataclass(slots=True)
class _Stream:
    caller: Caller
    limit: asyncio.Timeout
    why: UnauthenticatedError | None = None
    """Why it ends before its time."""


class OpenStreams:
    """All streams of people that are open now.

    Args:
        limits: how many there may be.
        now_s: Unix seconds.
    """

    def __init__(self, limits: Limits, now_s: Callable[[], float]) -> None:
        self._limits = limits
        self._now_s = now_s
        self._counts: Counter[str] = Counter()
        self._streams: dict[int, _Stream] = {}

    def __len__(self) -> int:
        return len(self._streams)

    def end(self, record: TokenRecord) -> None:
        """The token was revoked: what it opened ends now."""
        for stream in self._streams.values():
            if stream.caller.token_id == record.id:
                stream.why = ended(record, self._now_s())
                stream.limit.reschedule(asyncio.get_running_loop().time())

    @asynccontextmanager
    async def open(self, caller: Caller) -> AsyncGenerator[None, None]:
        """Around one stream.

        Raises:
            RateLimitedError: the caller, or all together, hold too many.
            UnauthenticatedError: the token ended meanwhile.
        """
        self._check_count(caller)
        stream = _Stream(caller, asyncio.timeout(caller.expires_s - self._now_s() if caller.expires_s else None))
        self._streams[id(stream)] = stream
        self._counts[caller.key] += 1
        try:
            async with stream.limit:
                yield
        except TimeoutError:
            if not stream.limit.expired():
                raise
            raise stream.why or _expired(caller) from None
        finally:
            del self._streams[id(stream)]
            self._counts[caller.key] -= 1
            if not self._counts[caller.key]:
                del self._counts[caller.key]

    def _check_count(self, caller: Caller) -> None:
        own, most = self._counts[caller.key], self._limits.streams
        if own >= most:
            raise RateLimitedError(
                f"{caller} holds {own} streams open, and may hold {most}",
                hint="end some of them: watch, logs -f and events -w hold one each",
                retry_after_s=_AGAIN_S,
            )
        if len(self._streams) >= self._limits.all_streams:
            raise RateLimitedError(
                f"all callers together hold {len(self._streams)} streams open, which is the limit",
                hint="try again when somebody has ended theirs",
                retry_after_s=_AGAIN_S,
            )


def _expired(caller: Caller) -> UnauthenticatedError:
    record = TokenRecord(id=caller.token_id, name=caller.name, sha256="", expires_s=caller.expires_s)
    return ended(record, caller.expires_s) or UnauthenticatedError(f"{caller} is over")
