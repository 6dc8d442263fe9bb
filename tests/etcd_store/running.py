"""What the tests of the store in etcd have in common: a deadline, and a store that is closed again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from trainctl.controller.store.etcd.address import parse_address
from trainctl.controller.store.etcd.store import EtcdStore
from waiting import PATIENCE_S


def run(body: Callable[[], Awaitable[None]]) -> None:
    """Runs ``body`` in an event loop of its own, within the deadline."""

    async def main() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await body()

    asyncio.run(main())


@asynccontextmanager
async def opened(address: str) -> AsyncIterator[EtcdStore]:
    """A store for as long as the block lasts."""
    store = await EtcdStore.open(parse_address(address))
    try:
        yield store
    finally:
        await store.close()
