"""Whoever asks while nobody leads is told why, also right after a start or a term, before the next try has failed.

Without it people would see UNAVAILABLE and not know what to mend.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random

import pytest

from simulation.controllers import ControllerHost
from simulation.data_plane import MemoryFiles
from simulation.network import Network, ResetError
from simulation.virtual_loop import run_virtually
from simulation.virtual_store import VirtualStore
from trainctl.controller import keys
from trainctl.controller.rpc.standby import NotLeaderError
from trainctl.controller.run_dir import RunDir
from trainctl.controller.store.port import Delete, Put, StoreCorruptError
from trainctl.protos.v1 import job_pb2

TTL_S = 10.0


class Site:
    """One controller that shares its store, and somebody who asks it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = VirtualStore()
        self.network = Network(Random(1))
        self.host = ControllerHost("c", folder, self.store, self.network, Random(2), TTL_S, MemoryFiles())

    async def ask(self) -> str:
        """Code of what keeps it from leading; empty if it leads."""
        while True:
            try:
                request = job_pb2.ListJobsRequest()
                await self.network.call("user", self.host.address, "ListJobs", request, timeout_s=1.0)
            except NotLeaderError as error:
                return error.cause or "unknown"
            except ResetError:  # it gives its port to the next server
                await asyncio.sleep(0.01)
            else:
                return ""


def run(folder: Path, body: Callable[[Site], Awaitable[None]]) -> None:
    async def main() -> None:
        site = Site(folder)
        try:
            await body(site)
        finally:
            await site.host.bury()
            site.store.close()

    run_virtually(main)


def test_what_ended_the_life_before_is_known_until_this_one_has_tried(tmp_path: Path) -> None:
    async def body(site: Site) -> None:
        run_dir = RunDir(tmp_path / "c")
        run_dir.write_end(StoreCorruptError("a value cannot be read", hint="restore it"), 7.0)
        site.host.link.cut = True
        site.host.start()
        await asyncio.sleep(0.5)
        assert await site.ask() == "STORE_CORRUPT"
        assert run_dir.end() is None  # of a life that is over
        await asyncio.sleep(3.0)
        assert await site.ask() == "STORE_UNAVAILABLE"
        site.host.link.cut = False
        await asyncio.sleep(1.0)
        assert not await site.ask()

    run(tmp_path, body)


def test_a_term_that_ended_for_a_silent_store_says_so_at_once(tmp_path: Path) -> None:
    async def body(site: Site) -> None:
        site.host.start()
        await asyncio.sleep(3.0)
        assert not await site.ask()
        site.host.link.cut = True
        while not (why := await site.ask()):  # noqa: ASYNC110 - it leads on until its lease is over
            await asyncio.sleep(0.1)
        assert why == "STORE_UNAVAILABLE"

    run(tmp_path, body)


@pytest.mark.parametrize("key", [keys.INSTALLATION, f"{keys.TOKENS}x"], ids=["seen before", "seen as it begins"])
def test_a_damaged_value_is_the_reason_until_it_is_mended(tmp_path: Path, key: str) -> None:
    async def body(site: Site) -> None:
        site.host.start()
        await asyncio.sleep(3.0)
        site.host.kill()
        good = site.store.get(key)
        site.store.txn("somebody", (), (Put(key, b"garbage"),))
        site.host.start()
        await asyncio.sleep(TTL_S + 20.0)
        assert site.host.ends == []  # nobody has to start it again
        whys = set()
        for _ in range(100):
            whys.add(await site.ask())
            await asyncio.sleep(0.1)
        assert whys == {"STORE_CORRUPT"}
        epoch = keys.decode(site.store.keys[keys.EPOCH].value)
        assert epoch < 12, "it tries now and then, not all the time"
        site.store.txn("somebody", (), (Delete(key) if good is None else Put(key, good.value),))
        await asyncio.sleep(6.0)
        assert not await site.ask()

    run(tmp_path, body)


def test_a_store_that_fills_up_before_the_next_term_is_the_reason(tmp_path: Path) -> None:
    async def body(site: Site) -> None:
        site.host.start()
        await asyncio.sleep(3.0)
        site.host.kill()
        site.store.full = True
        site.host.start()
        await asyncio.sleep(TTL_S + 1.0)
        assert site.store.get(keys.LEADER) is None
        assert await site.ask() == "STORE_FULL"
        site.store.full = False
        await asyncio.sleep(1.0)
        assert not await site.ask()

    run(tmp_path, body)
