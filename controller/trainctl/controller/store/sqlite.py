"""The embedded ``StateStore``: one SQLite file, one thread, one process."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

from trainctl.controller.store.database import Database
from trainctl.controller.store.port import (
    Compare,
    KeyValue,
    Operation,
    RangeResult,
    StoreClosedError,
    StoreCondition,
    StoreFullError,
    StoreLockedError,
    StoreUnavailableError,
    TxnResult,
    WatchBatch,
)
from trainctl.core.clock import Clock
from trainctl.core.errors import PermissionDeniedError
from trainctl.core.system.clock import SystemClock
from trainctl.core.system.file_lock import FileLock

P = ParamSpec("P")
R = TypeVar("R")

WATCH_PAGE_REVISIONS = 256
OnRequest = Callable[[str, float], None]


class SqliteStore:
    """Implements ``StateStore``; made by ``open``. Every call runs in one thread of its own, so the loop never waits.

    Leases are counted on the monotonic clock; after a restart each gets its full time again, as with a new etcd leader.
    """

    exclusive = True
    capacity_bytes = 0

    def __init__(
        self,
        database: Database,
        lock: FileLock,
        executor: ThreadPoolExecutor,
        clock: Clock,
        on_request: OnRequest | None,
    ) -> None:
        self._database = database
        self._lock = lock
        self._executor = executor
        self._clock = clock
        self._on_request = on_request
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._deadlines: dict[int, tuple[float, float]] = {}
        self._lease_wake = asyncio.Event()
        self._closed = False
        for lease, ttl_s in database.leases().items():
            self._deadlines[lease] = (clock.monotonic_s() + ttl_s, ttl_s)
        self._expiry = asyncio.create_task(self._expire_leases(), name="store-leases")

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        history_revisions: int = 10_000,
        clock: Clock | None = None,
        on_request: OnRequest | None = None,
    ) -> SqliteStore:
        """Opens or makes the store at ``path``.

        Args:
            path: the file; ``.lock`` and SQLite's own files lie beside it.
            history_revisions: how far back a watch can begin.
            clock: that leases are counted on.
            on_request: told about each request: its name and its seconds, waiting included.

        Raises:
            StoreLockedError: another process has it open; names its pid.
            StoreCorruptError: the file is damaged or not ours.
            PermissionDeniedError: the folder does not exist or cannot be written.
        """
        executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        lock = _locked(path)
        try:
            make = partial(Database, path, history_revisions=history_revisions)
            database = await asyncio.get_running_loop().run_in_executor(executor, make)
        except BaseException:
            lock.release()
            executor.shutdown(wait=False)
            raise
        return cls(database, lock, executor, clock or SystemClock(), on_request)

    async def get(self, key: str) -> KeyValue | None:
        """See ``StateStore.get``."""
        return await self._run(self._database.get, key)

    async def range(self, prefix: str, *, limit: int = 0, start_after: str = "") -> RangeResult:
        """See ``StateStore.range``."""
        return await self._run(self._database.range, prefix, limit, start_after)

    async def txn(self, compares: Sequence[Compare], operations: Sequence[Operation]) -> TxnResult:
        """See ``StateStore.txn``."""
        return await self._write(self._database.txn, compares, operations)

    async def watch(self, prefix: str, start_revision: int) -> AsyncIterator[WatchBatch]:
        """See ``StateStore.watch``."""
        following = start_revision
        while True:
            batches, following = await self._next_batches(prefix, following)
            for batch in batches:
                yield batch

    async def compact(self, revision: int) -> None:
        """See ``StateStore.compact``."""
        await self._write(self._database.compact, revision)

    async def lease_grant(self, ttl_s: float) -> int:
        """See ``StateStore.lease_grant``."""
        lease = await self._write(self._database.grant_lease, ttl_s)
        self._deadlines[lease] = (self._clock.monotonic_s() + ttl_s, ttl_s)
        self._lease_wake.set()
        return lease

    async def lease_keep_alive(self, lease: int) -> bool:
        """See ``StateStore.lease_keep_alive``."""
        if lease not in self._deadlines:
            return False
        _, ttl_s = self._deadlines[lease]
        self._deadlines[lease] = (self._clock.monotonic_s() + ttl_s, ttl_s)
        return True

    async def lease_revoke(self, lease: int) -> None:
        """See ``StateStore.lease_revoke``."""
        if self._deadlines.pop(lease, None) is not None:
            await self._write(self._database.drop_leases, [lease])

    async def size_bytes(self) -> int:
        """See ``StateStore.size_bytes``."""
        return await self._run(self._database.size_bytes)

    async def condition(self) -> StoreCondition:
        """See ``StateStore.condition``."""
        return await self._run(self._database.condition)

    async def close(self) -> None:
        """See ``StateStore.close``."""
        if self._closed:
            return
        self._closed = True
        self._expiry.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._expiry
        await asyncio.get_running_loop().run_in_executor(self._executor, self._database.close)
        self._executor.shutdown(wait=False)
        self._lock.release()
        self._wake_watchers()

    async def _run(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        return await _settle(self._submit(call, *args, **kwargs))

    async def _write(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        future = self._submit(call, *args, **kwargs)
        # From the store's thread, because the caller may be cancelled while its transaction is carried out.
        future.add_done_callback(lambda _: self._loop.call_soon_threadsafe(self._wake_watchers))
        return await _settle(future)

    def _submit(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        if self._closed:
            raise StoreClosedError("the state store is closed")
        future = self._executor.submit(call, *args, **kwargs)
        if self._on_request is not None:
            name, began_s, told = call.__name__, self._clock.monotonic_s(), self._on_request
            future.add_done_callback(lambda _: told(name, self._clock.monotonic_s() - began_s))
        return future

    def _wake_watchers(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _next_batches(self, prefix: str, start: int) -> tuple[list[WatchBatch], int]:
        """Waits until there are revisions from ``start`` on."""
        while True:
            changed = self._changed
            batches, following = await self._run(self._database.events, prefix, start, WATCH_PAGE_REVISIONS)
            if following > start:
                return batches, following
            await changed.wait()

    async def _expire_leases(self) -> None:
        while True:
            self._lease_wake.clear()
            now_s = self._clock.monotonic_s()
            expired = [lease for lease, (at_s, _) in self._deadlines.items() if at_s <= now_s]
            if expired:
                await self._drop_expired(expired)
                continue
            soonest_s = min((at_s for at_s, _ in self._deadlines.values()), default=now_s + 3600.0)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._lease_wake.wait(), timeout=soonest_s - now_s)

    async def _drop_expired(self, expired: list[int]) -> None:
        # Taken out first: a keep-alive that comes from now on must hear that the lease is gone.
        gone = {lease: self._deadlines.pop(lease) for lease in expired}
        try:
            await self._write(self._database.drop_leases, expired)
        except (StoreFullError, StoreUnavailableError):
            retry_s = self._clock.monotonic_s() + 1.0
            self._deadlines.update({lease: (retry_s, ttl_s) for lease, (_, ttl_s) in gone.items()})


async def _settle(future: Future[R]) -> R:
    """Waits for a call in the store's thread and translates what SQLite says."""
    try:
        return await asyncio.wrap_future(future)
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorname", "") == "SQLITE_FULL":
            hint = "free some disk space; the controller goes on by itself"
            raise StoreFullError(f"the state store cannot grow: {error}", hint=hint) from error
        raise StoreUnavailableError(f"the state store did not answer: {error}") from error


def _locked(path: Path) -> FileLock:
    """Holds the store at ``path`` against other processes."""
    try:
        lock = FileLock(path.with_name(path.name + ".lock"))
    except OSError as error:
        raise PermissionDeniedError(
            f"state store {path} cannot be opened: {error.strerror}", hint="check that its folder exists and is yours"
        ) from error
    lock.acquire_or(
        lambda holder: StoreLockedError(
            f"state store {path} is in use by process {holder}",
            hint=f"stop that controller first (trainctl local down, or kill {holder}), or use another folder",
        )
    )
    return lock
