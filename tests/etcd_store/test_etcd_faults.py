"""Members die, freeze and compact; what was acknowledged is there, and whoever watches misses and doubles nothing.

Without it a store in trouble could lose a job, or a controller act on what is not so any more.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from etcd_store.filling import fill
from etcd_store.running import opened, run
from etcd_store.servers import EtcdCluster
from trainctl.controller.jobs.room import check_room
from trainctl.controller.store.compaction import compact_regularly
from trainctl.controller.store.port import (
    CompactedError,
    Compare,
    Put,
    StateStore,
    StoreFullError,
    StoreUnavailableError,
    Target,
)


@pytest.fixture
def three(tmp_path: Path) -> Iterator[EtcdCluster]:
    with EtcdCluster(tmp_path / "etcd", 3) as cluster:
        yield cluster


class Counter:
    """Counts up in one key by compare-and-swap; an unknown outcome is resolved by reading again."""

    def __init__(self, store: StateStore) -> None:
        self._store = store
        self.unknown = 0

    async def value(self) -> tuple[int, int]:
        while True:
            try:
                found = await self._store.get("/n")
            except StoreUnavailableError:
                await asyncio.sleep(0.02)
                continue
            return (int(found.value), found.mod_revision) if found else (0, 0)

    async def up(self) -> int:
        value, revision = await self.value()
        while True:
            try:
                compare = Compare("/n", Target.MOD_REVISION, revision)
                result = await self._store.txn((compare,), (Put("/n", str(value + 1).encode()),))
                assert result.succeeded
                return value + 1
            except StoreUnavailableError:
                self.unknown += 1
                now, revision_now = await self.value()
                if now == value + 1:
                    return now
                assert (now, revision_now) == (value, revision)


async def values(store: StateStore, start: int, end: int) -> list[int]:
    """What a watch sees until the counter is at ``end``."""
    seen: list[int] = []
    async for batch in store.watch("/n", start):
        seen += [int(event.current.value) for event in batch.events if event.current]
        if seen[-1] >= end:
            return seen
    return seen


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
def test_the_leader_goes_while_one_counts_and_another_watches(three: EtcdCluster, number: signal.Signals) -> None:
    async def body() -> None:
        async with opened(three.address()) as writer, opened(three.address()) as watcher:
            counter = Counter(writer)
            end = 300
            watching = asyncio.create_task(values(watcher, 1, end))
            for value in range(1, end + 1):
                if value == 100:
                    leader = await asyncio.to_thread(three.leader)
                    leader.signal(number)
                assert await counter.up() == value
            assert await watching == list(range(1, end + 1))

    run(body)


def test_every_member_once(three: EtcdCluster) -> None:
    """One after the other is killed and comes back."""

    async def body() -> None:
        async with opened(three.address()) as writer, opened(three.address()) as watcher:
            counter = Counter(writer)
            watching = asyncio.create_task(values(watcher, 1, 300))
            for value in range(1, 301):
                if value % 75 == 0 and value < 300:
                    member = three.members[value // 75 - 1]
                    member.kill()
                    member.start()
                    await asyncio.to_thread(three.wait_ready)
                assert await counter.up() == value
            assert await watching == list(range(1, 301))

    run(body)


def test_without_a_majority_nothing_is_acknowledged_and_afterwards_all_goes_on(three: EtcdCluster) -> None:
    async def body() -> None:
        async with opened(three.address()) as store:
            first = await store.txn((), (Put("/n", b"1"),))
            for member in three.members[1:]:
                member.kill()
            with pytest.raises(StoreUnavailableError, match="no answer"):
                await store.txn((Compare("/n", Target.MOD_REVISION, first.revision),), (Put("/n", b"2"),))
            with pytest.raises(StoreUnavailableError):
                await store.get("/n")
            three.start()
            await asyncio.to_thread(three.wait_ready)
            assert await Counter(store).value() in ((1, first.revision), (2, first.revision + 1))

    run(body)


def test_who_lags_behind_a_compaction_is_told(tmp_path: Path) -> None:
    """A watch that was cut off meanwhile does not go on as if nothing had happened."""

    async def body(cluster: EtcdCluster) -> None:
        async with opened(cluster.address()) as store:
            counter = Counter(store)
            await counter.up()
            stream = store.watch("/n", 1)
            assert (await anext(stream)).events[0].current is not None
            cluster.stop()
            cluster.start()
            await asyncio.to_thread(cluster.wait_ready)
            for _ in range(5):
                await counter.up()
            _, revision = await counter.value()
            await store.compact(revision)
            with pytest.raises(CompactedError):
                raise AssertionError(f"went on with {await anext(stream)}")

    with EtcdCluster(tmp_path / "etcd") as cluster:
        run(lambda: body(cluster))


def test_history_is_given_up_while_the_leader_leads(tmp_path: Path) -> None:
    async def body(cluster: EtcdCluster) -> None:
        async with opened(cluster.address()) as store:
            compacting = asyncio.create_task(compact_regularly(store, every_s=0.1))
            counter = Counter(store)
            await counter.up()
            while True:
                await counter.up()
                try:
                    await anext(store.watch("/n", 2))
                except CompactedError as error:
                    compacted = error.compacted_revision
                    break
            assert compacted >= 2
            compacting.cancel()

    with EtcdCluster(tmp_path / "etcd") as cluster:
        run(lambda: body(cluster))


def test_new_work_is_refused_before_there_is_no_room_for_what_runs(tmp_path: Path) -> None:
    async def body(cluster: EtcdCluster) -> None:
        async with opened(cluster.address(quota="4MiB")) as store:
            await check_room(store)
            with pytest.raises(StoreFullError, match=r"of 4.0 MiB: no new jobs are taken in") as found:
                await fill(store, before_each=lambda: check_room(store))
            assert "etcdctl defrag" in found.value.hint
            assert (await store.txn((), (Put("/0", b"what runs goes on"),))).succeeded

    with EtcdCluster(tmp_path / "etcd") as cluster:
        run(lambda: body(cluster))


def test_a_full_etcd_says_so_and_what_to_do(tmp_path: Path) -> None:
    async def body(cluster: EtcdCluster) -> None:
        async with opened(cluster.address()) as store:
            with pytest.raises(StoreFullError, match="the store is full") as found:
                await fill(store)
            assert "quota" in found.value.hint
            assert await store.get("/0") is not None  # reading goes on

    with EtcdCluster(tmp_path / "etcd", flags=[f"--quota-backend-bytes={16 << 20}"]) as cluster:
        run(lambda: body(cluster))
