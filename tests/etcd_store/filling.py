"""An etcd whose space is used up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from trainctl.controller.store.port import Put, StateStore


async def fill(store: StateStore, before_each: Callable[[], Awaitable[None]] | None = None) -> None:
    for index in range(200):
        if before_each is not None:
            await before_each()
        await store.txn((), (Put(f"/{index}", bytes(1 << 20)),))
