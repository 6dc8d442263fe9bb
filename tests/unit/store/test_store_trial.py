"""Trying whether a store takes writes: an answer in time whatever the store does, and nothing left behind in it.

Without it the doctor could hang on a store that hangs, or leave its own keys there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from simulation.virtual_loop import run_virtually
from simulation.virtual_store import StoreClient, VirtualStore
from trainctl.controller.leadership import Candidate, Leadership
from trainctl.controller.store.port import Put, StoreFullError, StoreUnavailableError
from trainctl.controller.store.sqlite import SqliteStore
from trainctl.controller.store.trial import MOST_S, StoreTrial
from trainctl.core.system.clock import SystemClock

Body = Callable[[VirtualStore, StoreClient, StoreTrial], Awaitable[None]]


def tried(body: Body) -> None:
    async def main() -> None:
        server = VirtualStore(capacity_bytes=2**20)
        client = StoreClient(server, "a")
        await body(server, client, StoreTrial(client, asyncio.get_running_loop().time))
        server.close()

    run_virtually(main)


def test_a_store_that_is_well_is_left_as_it_was() -> None:
    async def body(server: VirtualStore, client: StoreClient, trial: StoreTrial) -> None:
        await client.txn((), (Put("/a", b"1"),))
        revision = server.revision
        found = await trial.look(5.0)
        assert found.error is None
        assert 0 < found.took_s < 0.1
        assert found.condition is not None
        assert found.condition.limit_bytes == 2**20
        await asyncio.sleep(60.0)  # no lease runs out
        assert (server.revision, set(server.keys)) == (revision, {"/a"})

    tried(body)


def test_a_full_one_says_so_itself() -> None:
    async def body(server: VirtualStore, client: StoreClient, trial: StoreTrial) -> None:
        server.full = True
        found = await trial.look(5.0)
        assert isinstance(found.error, StoreFullError)
        assert found.condition is not None
        assert found.condition.alarms == ("NOSPACE",)

    tried(body)


def test_a_silent_one_keeps_nobody_waiting() -> None:
    async def body(server: VirtualStore, client: StoreClient, trial: StoreTrial) -> None:
        client.link.cut = True
        now_s = asyncio.get_running_loop().time
        for within_s in (0.5, 1.5):
            began_s = now_s()
            found = await trial.look(within_s)
            assert now_s() - began_s == pytest.approx(within_s)
            assert isinstance(found.error, StoreUnavailableError)
            assert found.condition is None
        found = await trial.look(1e9)
        assert found.took_s < MOST_S  # as long as the store's client waits
        client.link.cut = False
        assert (await trial.look(1.0)).error is None

    tried(body)


def test_many_who_ask_share_one_trial() -> None:
    async def body(server: VirtualStore, client: StoreClient, trial: StoreTrial) -> None:
        granted = server._last_lease
        first = asyncio.create_task(trial.look(5.0))
        await asyncio.sleep(0.0001)
        server.full = True
        others = await asyncio.gather(*(trial.look(5.0) for _ in range(20)))
        assert server._last_lease == granted  # one more trial for all of them
        assert len({id(one) for one in (await first, *others)}) == 2
        server.full = False
        assert (await trial.look(5.0)).error is None  # not what was true before

    tried(body)


def test_nobodys_impatience_is_told_to_others() -> None:
    async def body(server: VirtualStore, client: StoreClient, trial: StoreTrial) -> None:
        client.link.delay_s = 0.3
        hurried = asyncio.create_task(trial.look(0.1))
        await asyncio.sleep(0.05)
        assert (await trial.look(5.0)).error is None
        assert (await hurried).error is not None

    tried(body)


def test_who_waits_behind_somebody_elses_trial_waits_no_longer_than_he_said() -> None:
    async def body(server: VirtualStore, client: StoreClient, trial: StoreTrial) -> None:
        client.link.cut = True
        patient = asyncio.create_task(trial.look(1.9))
        await asyncio.sleep(0.1)
        began_s = asyncio.get_running_loop().time()
        assert (await trial.look(0.2)).error is not None
        assert asyncio.get_running_loop().time() - began_s == pytest.approx(0.2)
        await patient

    tried(body)


def test_a_file_is_tried_with_a_durable_write(tmp_path: Path) -> None:
    async def main() -> None:
        store = await SqliteStore.open(tmp_path / "s")
        before = await store.range("")
        trial = StoreTrial(store, SystemClock().monotonic_s)
        found = await trial.look(20.0)
        assert found.error is None
        assert found.condition is not None
        assert found.condition.disk_free_bytes
        assert await store.range("") == before
        # As a disk that was mounted read-only after errors.
        store._database._connection.execute("PRAGMA query_only=1")
        broken = await StoreTrial(store, SystemClock().monotonic_s).look(20.0)
        assert isinstance(broken.error, StoreUnavailableError)
        store._database._connection.execute("PRAGMA query_only=0")
        await store.close()

    asyncio.run(main())


def test_a_leader_knows_what_became_of_its_changes() -> None:
    async def body(server: VirtualStore, client: StoreClient, trial: StoreTrial) -> None:
        leadership = await Leadership.take(client, Candidate(holder="a", ttl_s=10.0))
        changes = leadership.changes
        assert 0 < changes.took_s < 0.1
        await asyncio.sleep(3.0)
        assert changes.confirmed_age_s == pytest.approx(3.0)
        client.link.cut = True
        with pytest.raises(StoreUnavailableError):
            await leadership.txn((), (Put("/a", b"1"),))
        await asyncio.sleep(1.0)
        assert changes.failed_age_s == pytest.approx(1.0)
        assert isinstance(changes.failure, StoreUnavailableError)
        client.link.cut = False
        client.link.delay_s = 0.25
        await leadership.txn((), (Put("/a", b"2"),))
        assert changes.failure is None
        assert changes.took_s == pytest.approx(0.5)
        assert changes.confirmed_age_s == 0.0

    tried(body)
