"""Who leads a shared store: one at a time in effect, whatever is believed; fail-over in time.

Without it two controllers could both command the agents, or none for a long time.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from etcd_store.running import opened as open_at
from etcd_store.running import run
from etcd_store.servers import EtcdCluster
from trainctl.controller import keys
from trainctl.controller.leadership import Candidate, Leadership, find_leader
from trainctl.controller.rpc.standby import StandbyServer
from trainctl.controller.standby import campaign
from trainctl.controller.store.etcd.store import EtcdStore
from trainctl.controller.store.port import Put, StateStore
from trainctl.core.errors import ConflictError, FencedError

TTL_S = 2.0


def opened(cluster: EtcdCluster, folder: Path) -> AbstractAsyncContextManager[EtcdStore]:
    return open_at(cluster.address(prefix=f"/{folder.name}"))


def candidate(name: str, now_s: float = 0.0) -> Candidate:
    return Candidate(holder=name, address=f"{name}:7070", ttl_s=TTL_S, now_s=now_s)


def standing_by(store: StateStore, name: str, now_s: float = 0.0) -> asyncio.Task[Leadership]:
    async def ready() -> Candidate:
        return candidate(name, now_s)

    return asyncio.create_task(campaign(store, ready, StandbyServer(), now_s=time.time))


def test_a_leader_that_says_nothing_is_followed_and_can_change_nothing_more(etcd: EtcdCluster, tmp_path: Path) -> None:
    async def body() -> None:
        async with opened(etcd, tmp_path) as store:
            first = await Leadership.take(store, candidate("first"))
            await first.txn((), (Put("/a", b"1"),))
            with pytest.raises(ConflictError, match="first at first:7070"):
                await Leadership.take(store, candidate("second"))
            began_s = time.monotonic()
            second = await standing_by(store, "second", now_s=1000.0)  # nobody renews the first one's lease
            assert time.monotonic() - began_s < TTL_S + 10.0  # etcd looks for dead leases twice a second
            assert second.epoch == first.epoch + 1
            assert second.former is not None
            assert 1000.0 - 2 * TTL_S - 2.0 < second.former.seen_s <= 1000.0 - TTL_S  # it saw the lease run out
            with pytest.raises(FencedError):  # it does not know yet
                await first.txn((), (Put("/a", b"2"),))
            assert first.fenced.is_set()
            await second.txn((), (Put("/b", b"1"),))
            found = await store.get("/a")
            assert found is not None
            assert found.value == b"1"

    run(body)


def test_a_renewed_lease_is_not_taken_and_one_that_resigns_is_followed_at_once(
    etcd: EtcdCluster, tmp_path: Path
) -> None:
    async def body() -> None:
        async with opened(etcd, tmp_path) as store:
            first = await Leadership.take(store, candidate("first"))
            renewing = asyncio.create_task(first.renew(time.monotonic, TTL_S))
            waiting = standing_by(store, "second")
            done, _ = await asyncio.wait({waiting, renewing}, timeout=2.5 * TTL_S)
            assert not done
            began_s = time.monotonic()
            await first.resign(0.0)
            second = await waiting
            assert time.monotonic() - began_s < 0.6 * TTL_S, "it did not wait for the lease to run out"
            leader = await find_leader(store)
            assert leader is not None
            assert (leader.holder, leader.epoch) == ("second", second.epoch)
            assert second.former is not None
            assert (second.former.holder, second.former.address) == ("first", "first:7070")
            await renewing

    run(body)


def test_a_leader_whose_lease_is_gone_or_cannot_be_renewed_stops(tmp_path: Path) -> None:
    async def body(cluster: EtcdCluster) -> None:
        async with opened(cluster, tmp_path) as store:
            first = await Leadership.take(store, candidate("first"))
            found = await store.get(keys.LEADER)
            assert found is not None
            await store.lease_revoke(found.lease)
            await first.renew(time.monotonic, TTL_S)
            assert first.fenced.is_set()
            second = await Leadership.take(store, candidate("second"))
            renewing = asyncio.create_task(second.renew(time.monotonic, TTL_S))
            await asyncio.wait({renewing}, timeout=0.2)
            cluster.stop()
            began_s = time.monotonic()
            await renewing
            assert time.monotonic() - began_s < TTL_S
            assert second.fenced.is_set()

    with EtcdCluster(tmp_path / "etcd") as cluster:
        run(lambda: body(cluster))


def test_one_of_many_leads_and_each_gets_its_turn(etcd: EtcdCluster, tmp_path: Path) -> None:
    async def body() -> None:
        async with opened(etcd, tmp_path) as store:
            waiting = {standing_by(store, f"c{index}") for index in range(5)}
            epochs = []
            while waiting:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                (turn,) = done
                leadership = turn.result()
                epochs.append(leadership.epoch)
                await leadership.txn((), (Put("/x", str(leadership.epoch).encode()),))
                await leadership.resign(0.0)
            assert epochs == [1, 2, 3, 4, 5]

    run(body)
