"""The part of ``make bench-control`` about etcd: fenced transactions, and how fast another controller leads."""

from __future__ import annotations

import asyncio
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from etcd_store.controllers import TTL_S, ControllerProcess, answers, two_controllers
from etcd_store.servers import EtcdCluster
from trainctl.controller.leadership import Candidate, Leadership
from trainctl.controller.store.etcd.address import parse_address
from trainctl.controller.store.etcd.store import EtcdStore
from trainctl.controller.store.port import Compare, Put, Target

WRITERS = 32
TXNS = 4000
VALUE_BYTES = 256
PATIENCE_S = 60.0
AS_SHIPPED = ("--backend-batch-limit=10000",)
"""etcd commits as many changes together as it does by itself; in tests each comes alone."""


def failovers_s(kills: int) -> Iterator[float]:
    """Seconds from a SIGKILL of the leader until the other controller answers; the killed one then stands by again."""
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        EtcdCluster(Path(folder) / "etcd", flags=AS_SHIPPED) as etcd,
        two_controllers(etcd, Path(folder)) as both,
    ):
        leader = _leader(both)
        for _ in range(kills):
            (heir,) = [one for one in both if one is not leader]
            began_s = time.monotonic()
            leader.send(signal.SIGKILL)
            _leader([heir])
            yield time.monotonic() - began_s
            leader.wait()
            leader.start()
            _until_listening(leader)
            leader = heir


def fenced_txn_rates(windows: int) -> Iterator[float]:
    """Transactions a second: each compares leader and key and puts two values; so many writers at a time."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, EtcdCluster(Path(folder), flags=AS_SHIPPED) as etcd:
        for window in range(windows):
            yield asyncio.run(_fenced_txns(etcd.address(prefix=f"/w{window}")))


async def _fenced_txns(address: str) -> float:
    store = await EtcdStore.open(parse_address(address))
    leadership = await Leadership.take(store, Candidate(holder="bench", ttl_s=60.0))

    async def write(writer: int) -> None:
        revision = 0
        for number in range(TXNS // WRITERS):
            unmoved = Compare(f"/jobs/{writer}", Target.MOD_REVISION, revision)
            puts = (
                Put(f"/jobs/{writer}", bytes(VALUE_BYTES)),
                Put(f"/events/{writer}/{number:06}", bytes(VALUE_BYTES)),
            )
            result = await leadership.txn((unmoved,), puts)
            assert result.succeeded
            revision = result.revision

    began_s = time.monotonic()
    await asyncio.gather(*(write(writer) for writer in range(WRITERS)))
    took_s = time.monotonic() - began_s
    await store.close()
    return TXNS // WRITERS * WRITERS / took_s


def _leader(controllers: list[ControllerProcess]) -> ControllerProcess:
    """The first of them that answers."""
    end_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < end_s:
        for one in controllers:
            if one.address and answers(one.address):
                return one
        time.sleep(0.01)
    raise TimeoutError("nobody leads: " + "\n".join(one.log[-1000:] for one in controllers))


def _until_listening(one: ControllerProcess) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not one.address:
        if time.monotonic() > end_s:
            raise TimeoutError(f"it does not start: {one.log[-1000:]}")
        time.sleep(0.01)


__all__ = ["TTL_S", "failovers_s", "fenced_txn_rates"]
