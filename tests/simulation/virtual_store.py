"""A state store in memory and virtual time, and clients whose way to it can break."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from simulation.virtual_loop import OUTSIDE
from trainctl.controller.store.limits import check_limits
from trainctl.controller.store.port import (
    CompactedError,
    Compare,
    Delete,
    KeyEvent,
    KeyValue,
    Operation,
    Put,
    RangeResult,
    StoreCondition,
    StoreFullError,
    StoreUnavailableError,
    Target,
    TransactionLimitError,
    TxnResult,
    WatchBatch,
)
from trainctl.core.errors import TrainctlError

R = TypeVar("R")

CALL_TIMEOUT_S = 2.0
"""As the client of etcd waits for an answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """One revision, with who made it and what was compared."""

    at_s: float
    revision: int
    client: str
    compares: tuple[Compare, ...]
    events: tuple[KeyEvent, ...]


class VirtualStore:
    """The server: strictly serializable, as everything in it happens in one turn."""

    def __init__(self, *, capacity_bytes: int = 0) -> None:
        self.revision = 0
        self.keys: dict[str, KeyValue] = {}
        self.written: list[Written] = []
        self.capacity_bytes = capacity_bytes
        self.full = False
        self.size_bytes = 0
        self._compacted = 0
        self._history: list[WatchBatch] = []
        self._last_lease = 0
        self._leases: dict[int, float] = {}
        self._granted: dict[int, float] = {}
        self._held: dict[int, dict[str, None]] = {}
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._changed: list[asyncio.Future[None]] = []

    def get(self, key: str) -> KeyValue | None:
        return self.keys.get(key)

    def range(self, prefix: str, limit: int, start_after: str) -> RangeResult:
        found = sorted(key for key in self.keys if key.startswith(prefix) and key > start_after)
        more = bool(limit) and len(found) > limit
        items = tuple(self.keys[key] for key in (found[:limit] if more else found))
        return RangeResult(items=items, revision=self.revision, more=more)

    def txn(self, client: str, compares: Sequence[Compare], operations: Sequence[Operation]) -> TxnResult:
        check_limits(compares, operations)
        if self.full and any(isinstance(operation, Put) for operation in operations):
            raise StoreFullError("the store is full")
        current = tuple(self.keys.get(compare.key) for compare in compares)
        if not all(_holds(compare, found) for compare, found in zip(compares, current, strict=True)):
            return TxnResult(succeeded=False, revision=self.revision, current=current)
        for operation in operations:
            if isinstance(operation, Put) and operation.lease and operation.lease not in self._leases:
                raise TransactionLimitError(f"put of {operation.key}: lease {operation.lease} does not exist")
        self._apply(client, tuple(compares), operations)
        return TxnResult(succeeded=True, revision=self.revision)

    def compact(self, revision: int) -> None:
        revision = min(revision, self.revision)
        if revision > self._compacted:
            self._compacted = revision
            self._history = [batch for batch in self._history if batch.revision > revision]
            self._wake()

    def events(self, prefix: str, start_revision: int) -> list[WatchBatch]:
        """Whole revisions from one on, those without such keys left out."""
        if start_revision <= self._compacted:
            raise CompactedError(start_revision, self._compacted)
        found = []
        for batch in reversed(self._history):
            if batch.revision < start_revision:
                break
            events = tuple(event for event in batch.events if event.key.startswith(prefix))
            if events:
                found.append(WatchBatch(revision=batch.revision, events=events))
        return found[::-1]

    def changed(self) -> asyncio.Future[None]:
        """Done at the next change of anything."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._changed.append(future)
        return future

    def lease_grant(self, ttl_s: float) -> int:
        if self.full:
            raise StoreFullError("the store is full")
        self._last_lease += 1
        self._leases[self._last_lease] = self._granted[self._last_lease] = ttl_s
        self._wind(self._last_lease)
        return self._last_lease

    def lease_keep_alive(self, lease: int) -> bool:
        if lease in self._leases:
            self._wind(lease)
        return lease in self._leases

    def lease_revoke(self, lease: int) -> None:
        """Ends a lease; also what a store does whose clock runs away."""
        if self._leases.pop(lease, None) is None:
            return
        self._timers.pop(lease).cancel()
        keys = sorted(self._held.pop(lease, {}))
        if keys:
            self._apply("lease", (), [Delete(key) for key in keys])

    def restore(self, written: Sequence[Written]) -> None:
        """Another state, such as an older one, takes the place of what there is; its leases begin anew."""
        self.close()
        self.written, self.keys, self._held, self.size_bytes = list(written), {}, {}, 0
        for event in (event for one in written for event in one.events):
            self._take(self.keys.get(event.key), event.current)
        self.revision = self._compacted = written[-1].revision if written else 0
        self._history = []
        self._leases = {lease: self._granted[lease] for lease in sorted(self._held)}
        for lease in self._leases:
            self._wind(lease)
        self._wake()

    def lease_of(self, key: str) -> int:
        found = self.keys.get(key)
        return found.lease if found is not None else 0

    def close(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _wind(self, lease: int) -> None:
        if lease in self._timers:
            self._timers[lease].cancel()
        loop = asyncio.get_running_loop()
        self._timers[lease] = loop.call_later(self._leases[lease], self.lease_revoke, lease, context=OUTSIDE)

    def _apply(self, client: str, compares: tuple[Compare, ...], operations: Sequence[Operation]) -> None:
        revision, events = self.revision + 1, []
        for operation in operations:
            old = self.keys.get(operation.key)
            if isinstance(operation, Put):
                new = KeyValue(
                    key=operation.key,
                    value=operation.value,
                    create_revision=old.create_revision if old else revision,
                    mod_revision=revision,
                    version=old.version + 1 if old else 1,
                    lease=operation.lease,
                )
                self._take(old, new)
                events.append(KeyEvent(key=operation.key, current=new))
            elif old is not None:
                self._take(old, None)
                events.append(KeyEvent(key=operation.key, current=None))
        if not events:
            return
        self.revision = revision
        self._history.append(WatchBatch(revision=revision, events=tuple(sorted(events, key=lambda e: e.key))))
        at_s = asyncio.get_running_loop().time()
        self.written.append(
            Written(at_s=at_s, revision=revision, client=client, compares=compares, events=tuple(events))
        )
        self._wake()

    def _take(self, old: KeyValue | None, new: KeyValue | None) -> None:
        if old is not None:
            self.size_bytes -= len(old.key) + len(old.value)
            self.keys.pop(old.key)
            if old.lease in self._held:
                self._held[old.lease].pop(old.key, None)
        if new is not None:
            self.size_bytes += len(new.key) + len(new.value)
            self.keys[new.key] = new
            if new.lease:
                self._held.setdefault(new.lease, {})[new.key] = None

    def _wake(self) -> None:
        waiting, self._changed = self._changed, []
        for future in waiting:
            if not future.done():
                future.set_result(None)


@dataclass(slots=True)
class StoreLink:
    """The way of one client to the store and back, and what is wrong with it.

    Attributes:
        delay_s: each way.
        cut: nothing gets through; a request gets no answer.
        lose_requests: so many of the next writes never arrive.
        lose_answers: so many of the next writes arrive, but the client never hears of it.
        late: so many of the next writes arrive only when the client has given up.
        watch_delay_s: how far behind watches are.
    """

    delay_s: float = 0.0005
    cut: bool = False
    lose_requests: int = 0
    lose_answers: int = 0
    late: int = 0
    watch_delay_s: float = 0.0

    def heal(self) -> None:
        self.delay_s, self.watch_delay_s, self.cut = 0.0005, 0.0, False
        self.lose_requests = self.lose_answers = self.late = 0

    def fate(self) -> str:
        """What becomes of the next write."""
        for name in ("lose_requests", "lose_answers", "late"):
            if getattr(self, name):
                setattr(self, name, getattr(self, name) - 1)
                return name
        return ""


@dataclass(slots=True)
class StoreClient:
    """Implements ``StateStore`` beside any number of others.

    Args:
        server: that they share.
        name: of this client, for the history.
        link: the way to it.
    """

    server: VirtualStore
    name: str
    link: StoreLink = field(default_factory=StoreLink)
    exclusive: bool = False
    closed: bool = False

    @property
    def capacity_bytes(self) -> int:
        return self.server.capacity_bytes

    async def get(self, key: str) -> KeyValue | None:
        return await self._call(lambda: self.server.get(key))

    async def range(self, prefix: str, *, limit: int = 0, start_after: str = "") -> RangeResult:
        return await self._call(lambda: self.server.range(prefix, limit, start_after))

    async def txn(self, compares: Sequence[Compare], operations: Sequence[Operation]) -> TxnResult:
        check_limits(compares, operations)
        return await self._call(lambda: self.server.txn(self.name, compares, operations), fate=self.link.fate())

    async def watch(self, prefix: str, start_revision: int) -> AsyncIterator[WatchBatch]:
        following = start_revision
        while True:
            changed = self.server.changed()
            if self.link.watch_delay_s:
                await asyncio.sleep(self.link.watch_delay_s)
            if self.link.cut or self.closed:
                await asyncio.sleep(CALL_TIMEOUT_S)
                if self.link.cut or self.closed:
                    raise StoreUnavailableError("the state store did not answer")
            for batch in self.server.events(prefix, following):
                following = batch.revision + 1
                yield batch
            await changed

    async def compact(self, revision: int) -> None:
        await self._call(lambda: self.server.compact(revision))

    async def lease_grant(self, ttl_s: float) -> int:
        return await self._call(lambda: self.server.lease_grant(ttl_s))

    async def lease_keep_alive(self, lease: int) -> bool:
        return await self._call(lambda: self.server.lease_keep_alive(lease))

    async def lease_revoke(self, lease: int) -> None:
        await self._call(lambda: self.server.lease_revoke(lease))

    async def size_bytes(self) -> int:
        return await self._call(lambda: self.server.size_bytes)

    async def condition(self) -> StoreCondition:
        return await self._call(
            lambda: StoreCondition(
                size_bytes=self.server.size_bytes,
                limit_bytes=self.server.capacity_bytes,
                alarms=("NOSPACE",) if self.server.full else (),
            )
        )

    async def close(self) -> None:
        self.closed = True

    async def _call(self, act: Callable[[], R], *, fate: str = "") -> R:
        if self.closed:
            raise StoreUnavailableError("the state store is closed")
        loop, link = asyncio.get_running_loop(), self.link
        answer: asyncio.Future[R] = loop.create_future()

        def deliver(result: R | TrainctlError) -> None:
            if link.cut or fate or answer.done():
                return
            if isinstance(result, TrainctlError):
                answer.set_exception(result)
            else:
                answer.set_result(result)

        def arrive() -> None:
            if link.cut:
                return
            result: R | TrainctlError
            try:
                result = act()
            except TrainctlError as error:
                result = error
            loop.call_later(link.delay_s, deliver, result, context=OUTSIDE)

        if fate != "lose_requests":
            delay_s = CALL_TIMEOUT_S + 0.3 if fate == "late" else link.delay_s
            loop.call_later(delay_s, arrive, context=OUTSIDE)
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                return await answer
        except TimeoutError:
            raise StoreUnavailableError("the state store did not answer") from None


def _holds(compare: Compare, found: KeyValue | None) -> bool:
    if compare.target is Target.VALUE:
        return found is not None and found.value == compare.expected
    return compare.expected == (0 if found is None else getattr(found, compare.target.value))
