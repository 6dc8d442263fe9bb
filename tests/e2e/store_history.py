"""Everything that was ever written to the store, followed from its first revision on, and what must hold of it."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trainctl.controller import keys
from trainctl.controller.domain.states import TERMINAL, JobPhase
from trainctl.controller.store.etcd.address import parse_address
from trainctl.controller.store.etcd.store import EtcdStore
from trainctl.controller.store.port import Put, StoreUnavailableError, WatchBatch
from waiting import PATIENCE_S

FENCED = (keys.JOBS, keys.NAMES, keys.NODES, keys.EVENTS, keys.MARKS, keys.INTENTS)
"""What only a leader writes."""


class StoreHistory:
    """Follows the store from a thread of its own, over losses of its members; a context manager.

    Args:
        address: of the store, without wires that are hurt.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._batches: list[WatchBatch] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="store-history", daemon=True)

    def __enter__(self) -> StoreHistory:
        self._thread.start()
        self._store = self._run(EtcdStore.open(parse_address(self._address)))
        self._following = asyncio.run_coroutine_threadsafe(self._follow(), self._loop)
        return self

    def __exit__(self, *_: object) -> None:
        self._following.cancel()
        self._run(self._store.close())
        self._run(asyncio.sleep(0))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def batches(self) -> list[WatchBatch]:
        """All of it up to now."""
        found: list[WatchBatch] = self._run(self._until_now())
        return found

    def write(self, key: str, value: bytes) -> None:
        """Puts a key past all fences, as somebody who fills the store."""
        self._run(self._put(key, value))

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_S)

    async def _follow(self) -> None:
        async for batch in self._store.watch("/", 1):
            self._batches.append(batch)

    async def _put(self, key: str, value: bytes) -> None:
        await self._store.txn((), (Put(key, value),))

    async def _until_now(self) -> list[WatchBatch]:
        while True:
            if self._following.done():
                self._following.result()
            try:
                newest = max((item.mod_revision for item in (await self._store.range("/")).items), default=0)
            except StoreUnavailableError:
                continue
            while not self._batches or self._batches[-1].revision < newest:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            return list(self._batches)


async def read_history(address: str) -> list[WatchBatch]:
    """All of it up to now, of a store whose history nobody has compacted. For tests that have a loop of their own."""
    store = await EtcdStore.open(parse_address(address))
    newest = max((item.mod_revision for item in (await store.range("/")).items), default=0)
    found: list[WatchBatch] = []
    try:
        async for batch in store.watch("/", 1):
            found.append(batch)
            if batch.revision >= newest:
                break
    finally:
        await store.close()
    return found


@dataclass(frozen=True, slots=True)
class StaleWrite:
    """A change that came from nobody who led at that revision."""

    revision: int
    keys: tuple[str, ...]
    why: str


def stale_writes(batches: Sequence[WatchBatch]) -> list[StaleWrite]:
    """Changes without a leader, or that name another epoch than the leader's (invariant I7)."""
    found: list[StaleWrite] = []
    leader: int | None = None
    highest = 0
    for batch in batches:
        for event in batch.events:
            if event.key == keys.LEADER:
                leader = int(keys.decode(event.current.value)["epoch"]) if event.current is not None else None
                if leader is not None and leader <= highest:
                    found.append(StaleWrite(batch.revision, (event.key,), f"epoch {leader} after {highest}"))
                highest = max(highest, leader or 0)
        written = tuple(e.key for e in batch.events if e.current is not None and e.key.startswith(FENCED))
        if written and leader is None:
            found.append(StaleWrite(batch.revision, written, "nobody led"))
        for epoch in _epochs_named(batch):
            if epoch != leader:
                found.append(StaleWrite(batch.revision, written, f"by epoch {epoch}, while {leader} led"))
    return found


def _epochs_named(batch: WatchBatch) -> set[int]:
    return {
        int(event["epoch"])
        for change in batch.events
        if change.key.startswith(keys.EVENTS) and change.current is not None
        for event in keys.decode(change.current.value)
    }


def overwritten_events(batches: Sequence[WatchBatch]) -> list[str]:
    """Keys of events that were written more than once: what was there before is lost."""
    return [
        event.key
        for batch in batches
        for event in batch.events
        if event.key.startswith(keys.EVENTS) and event.current is not None and event.current.version != 1
    ]


def broken_jobs(batches: Sequence[WatchBatch]) -> list[str]:
    """Jobs whose generation falls, or whose end changes (I1, I2), as sentences."""
    broken: list[str] = []
    states: dict[str, list[Any]] = {}
    for batch in batches:
        for event in batch.events:
            if event.key.startswith(keys.JOBS) and event.key.endswith(keys.STATUS) and event.current is not None:
                states.setdefault(event.key, []).append(keys.decode(event.current.value))
    for key, seen in states.items():
        for before, after in itertools.pairwise(seen):
            if JobPhase(before["phase"]) in TERMINAL and before["phase"] != after["phase"]:
                broken.append(f"{key}: {before['phase']} became {after['phase']}")
            for old, new in zip(before["islands"], after["islands"], strict=False):
                if new["generation"] < old["generation"]:
                    broken.append(f"{key}: generation {old['generation']} became {new['generation']}")
            if after["epoch"] < before["epoch"]:
                broken.append(f"{key}: epoch {before['epoch']} became {after['epoch']}")
    return broken
