"""Without it the simulated store could be kinder than etcd, and bugs of an unkind one would be found by users."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from contracts.state_store import Body, StateStoreContract
from simulation.virtual_loop import run_virtually
from simulation.virtual_store import CALL_TIMEOUT_S, StoreClient, VirtualStore
from trainctl.controller.store.port import (
    CompactedError,
    Compare,
    Put,
    StateStore,
    StoreFullError,
    StoreUnavailableError,
    Target,
)


class TestVirtualStore(StateStoreContract):
    @pytest.fixture(autouse=True)
    def _servers(self) -> None:
        self.servers: dict[Path, VirtualStore] = {}

    def run(self, folder: Path, body: Body) -> None:
        async def main() -> None:
            async with self.open_store(folder) as store:
                await body(store)

        run_virtually(main)

    def open_store(self, folder: Path) -> AbstractAsyncContextManager[StateStore]:
        return self._open(folder)

    @asynccontextmanager
    async def _open(self, folder: Path) -> AsyncIterator[StateStore]:
        server = self.servers.setdefault(folder, VirtualStore())
        yield StoreClient(server, "one")
        server.close()


def opened() -> StoreClient:
    return StoreClient(VirtualStore(), "one")


def test_a_store_that_is_away_is_noticed_in_time() -> None:
    async def main() -> float:
        store, loop = opened(), asyncio.get_running_loop()
        store.link.cut = True
        began_s = loop.time()
        with pytest.raises(StoreUnavailableError):
            await store.get("a")
        store.link.heal()
        assert await store.get("a") is None
        return loop.time() - began_s

    assert run_virtually(main) == pytest.approx(CALL_TIMEOUT_S, abs=0.01)


@pytest.mark.parametrize(
    ("fate", "at_once", "later"),
    [("lose_requests", None, None), ("lose_answers", b"1", b"1"), ("late", None, b"1")],
)
def test_an_unknown_outcome_is_one_of_three(fate: str, at_once: bytes | None, later: bytes | None) -> None:
    async def main() -> None:
        store = opened()
        setattr(store.link, fate, 1)
        with pytest.raises(StoreUnavailableError):
            await store.txn((), (Put("a", b"1"),))
        found = await store.get("a")
        assert (found.value if found else None) == at_once
        await asyncio.sleep(1.0)
        found = await store.get("a")
        assert (found.value if found else None) == later

    run_virtually(main)


def test_a_full_store_takes_nothing_but_answers() -> None:
    async def main() -> None:
        store = opened()
        store.server.full = True
        with pytest.raises(StoreFullError):
            await store.txn((), (Put("a", b"1"),))
        assert not (await store.txn((Compare("a", Target.VERSION, 1),), ())).succeeded
        assert await store.get("a") is None

    run_virtually(main)


def test_a_watch_that_is_behind_hears_of_a_compaction() -> None:
    async def main() -> None:
        store = opened()
        for value in (b"1", b"2", b"3"):
            await store.txn((), (Put("a", value),))
        watching = store.watch("a", 1)
        assert (await anext(watching)).revision == 1
        await store.compact(3)
        assert (await anext(watching)).revision == 2, "what was read already is still given"
        assert (await anext(watching)).revision == 3
        waiting = asyncio.ensure_future(anext(watching))
        await asyncio.sleep(0.0)
        await store.txn((), (Put("a", b"4"),))
        await store.txn((), (Put("a", b"5"),))
        assert (await waiting).revision == 4
        late = store.watch("a", 2)
        with pytest.raises(CompactedError):
            await anext(late)

    run_virtually(main)


def test_a_lease_that_is_taken_away_while_its_owner_lives() -> None:
    async def main() -> None:
        store = opened()
        lease = await store.lease_grant(10.0)
        await store.txn((), (Put("/leader", b"1", lease),))
        store.server.lease_revoke(store.server.lease_of("/leader"))
        assert await store.get("/leader") is None
        assert not await store.lease_keep_alive(lease)

    run_virtually(main)
