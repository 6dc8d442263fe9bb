"""Writes whose answer is lost, and which take effect late: memory follows the store, and no event is overwritten.

Without it a controller could believe something else than its store says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from trainctl.controller import keys
from trainctl.controller.store.port import KeyValue, Operation, Put, StoreUnavailableError
from trainctl.core.errors import ConflictError, UnavailableError
from trainctl.protos.v1 import job_pb2
from unit.controller.controller_harness import Running, create, run, serving, spec


class Late:
    """The next transaction that writes a key of a kind gets no answer; it takes effect when ``arrive`` is called."""

    def __init__(self, running: Running, writes: Callable[[str], bool]) -> None:
        self._store = cast("Any", running.controller.leadership._store)
        self._txn, self._get = self._store.txn, self._store.get
        self._writes = writes
        self._held: tuple[Any, ...] | None = None
        self._blind = False
        self.held = asyncio.Event()
        self._store.txn, self._store.get = self.txn, self.get

    async def txn(self, compares: Any, operations: tuple[Operation, ...]) -> Any:
        wanted = self._held is None and any(isinstance(op, Put) and self._writes(op.key) for op in operations)
        if not wanted or self.held.is_set():
            return await self._txn(compares, operations)
        self._held = (compares, operations)
        self._blind = True
        self.held.set()
        raise StoreUnavailableError("no answer")

    async def get(self, key: str) -> KeyValue | None:
        """The one look right afterwards finds nobody either."""
        if self._blind:
            self._blind = False
            raise StoreUnavailableError("no answer")
        found: KeyValue | None = await self._get(key)
        return found

    async def arrive(self) -> bool:
        assert self._held is not None
        return bool((await self._txn(*self._held)).succeeded)


async def check_history(running: Running, name: str) -> None:
    """Every event is in the store, under a key that was written once, and what is shown is what is stored."""
    store: Any = running.controller.leadership._store
    stored = (await store.range(keys.EVENTS)).items
    assert [item.version for item in stored] == [1] * len(stored)
    numbers = [event["revision"] for item in stored for event in keys.decode(item.value)]
    assert numbers == list(range(1, len(numbers) + 1))
    shown = (await running.client.call("ListEvents", job_pb2.ListEventsRequest(name=name))).events
    assert [event.revision for event in shown] == numbers
    phases = [event.fields["to"] for event in shown if "to" in event.fields]
    assert phases[-1] == (await running.client.job(name)).status.phase


@pytest.mark.parametrize("arrives", ["late", "never"])
def test_a_change_without_an_answer(tmp_path: Path, arrives: str) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            client = running.client
            await client.call("CreateJob", create(spec()))
            late = Late(running, lambda key: key.startswith(keys.EVENTS))
            agent = await running.agent()
            await asyncio.wait_for(late.held.wait(), 10)
            if arrives == "late":
                await late.arrive()
            await client.until_phase("a", "RUNNING")
            await agent.until(lambda: bool(agent.desired))
            await check_history(running, "a")
            await agent.disconnect()

    run(main)


def test_a_wish_that_took_effect_late_is_obeyed_although_nothing_else_happens(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            client = running.client
            agent = await running.agent()
            await client.call("CreateJob", create(spec()))
            await client.until_phase("a", "RUNNING")
            late = Late(running, lambda key: key.startswith(f"{keys.ROOT}/requests/"))
            with pytest.raises(UnavailableError):
                await client.call("PauseJob", job_pb2.PauseJobRequest(name="a", request_id="r"))
            assert await late.arrive()
            await client.call("PauseJob", job_pb2.PauseJobRequest(name="a", request_id="r"))
            agent.observe()
            await client.until_phase("a", "PAUSED")
            await check_history(running, "a")
            await agent.disconnect()

    run(main)


def test_a_job_whose_creation_seemed_to_fail_is_found_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            client = running.client
            late = Late(running, lambda key: key.startswith(keys.NAMES))
            with pytest.raises(UnavailableError):
                await client.call("CreateJob", create(spec(), "r-1"))
            assert await late.arrive()
            with pytest.raises(ConflictError, match="exists"):
                await client.call("CreateJob", create(spec(), "r-2"))
            again = (await client.call("CreateJob", create(spec(), "r-1"))).job
            listed = (await client.call("ListJobs", job_pb2.ListJobsRequest())).jobs
            assert [job.uid for job in listed] == [again.uid]
            agent = await running.agent()
            await client.until_phase("a", "RUNNING")
            await check_history(running, "a")
            await agent.disconnect()

    run(main)


def test_a_deletion_that_took_effect_late_is_carried_out_although_nobody_asks_again(tmp_path: Path) -> None:
    """At a job that has ended no pass looks again."""

    async def main() -> None:
        async with serving(tmp_path) as running:
            client = running.client
            uid = (await client.call("CreateJob", create(spec()))).job.uid
            await client.call("CancelJob", job_pb2.CancelJobRequest(name="a"))
            await client.until_phase("a", "CANCELLED")
            late = Late(running, lambda key: key.startswith(keys.EVENTS))
            with pytest.raises(UnavailableError):
                await client.call("DeleteJob", job_pb2.DeleteJobRequest(name="a"))
            assert await late.arrive()
            await client.until_gone(uid)

    run(main)
