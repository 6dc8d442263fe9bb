"""Agents are kept running, through an outbox that survives a crash between the decision and the deed.

Without it an agent that died could stay away, or be started again and again at full speed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from trainctl.controller import keys
from trainctl.controller.cluster.port import AgentProcess, AgentRequest
from trainctl.controller.leadership import Candidate, Leadership
from trainctl.controller.nodes import NodeKeeper
from trainctl.controller.store.port import Put
from trainctl.controller.store.sqlite import SqliteStore
from trainctl.core.errors import UnavailableError
from trainctl.core.system.clock import SystemClock


class FakeCluster:
    """Processes that are numbers; ``store`` is looked at when one is created."""

    def __init__(self, store: SqliteStore, *nodes: str) -> None:
        self.processes: dict[str, AgentProcess] = {}
        self.created: list[str] = []
        self.intents_seen: list[int] = []
        self.failures = 0
        self.changed = asyncio.Event()
        self._store = store
        self._nodes = tuple(AgentRequest(node=node, slots=1) for node in nodes)
        self._callback: Callable[[], None] = lambda: None

    async def inventory(self) -> tuple[AgentRequest, ...]:
        return self._nodes

    async def observe(self) -> tuple[AgentProcess, ...]:
        return tuple(self.processes.values())

    async def create(self, request: AgentRequest) -> AgentProcess:
        self.intents_seen.append(len((await self._store.range(keys.INTENTS)).items))
        if self.failures:
            self.failures -= 1
            raise UnavailableError("not now")
        self.created.append(request.node)
        self.processes[request.node] = AgentProcess(node=request.node, pid=len(self.created), alive=True)
        self.changed.set()
        return self.processes[request.node]

    async def delete(self, node: str) -> None:
        del self.processes[node]

    def on_change(self, callback: Callable[[], None]) -> None:
        self._callback = callback

    async def close(self) -> None: ...

    def kill(self, node: str) -> None:
        self.processes[node] = AgentProcess(node=node, pid=self.processes[node].pid, alive=False, exit_code=-9)
        self._callback()

    async def until_created(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.created) < count:
                self.changed.clear()
                await self.changed.wait()


@asynccontextmanager
async def keeping(
    folder: Path, *nodes: str, failures: int = 0, intents: tuple[str, ...] = (), respawn_delay_s: float = 0.01
) -> AsyncIterator[tuple[FakeCluster, SqliteStore, list[tuple[AgentProcess, ...]]]]:
    store = await SqliteStore.open(folder / "s")
    leadership = await Leadership.take(store, Candidate(holder="test"))
    for node in intents:
        await store.txn((), (Put(keys.intent(node), keys.encode({"create": node})),))
    cluster, seen = FakeCluster(store, *nodes), list[tuple[AgentProcess, ...]]()
    cluster.failures = failures
    keeper = NodeKeeper(cluster, store, leadership, SystemClock(), respawn_delay_s=respawn_delay_s, seen=seen.append)
    task = asyncio.create_task(keeper.run())
    try:
        yield cluster, store, seen
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await store.close()


def test_missing_agents_are_created_with_the_intent_written_first(tmp_path: Path) -> None:
    async def main() -> None:
        async with keeping(tmp_path, "node-0", "node-1") as (cluster, store, _):
            await cluster.until_created(2)
            assert cluster.created == ["node-0", "node-1"]
            assert cluster.intents_seen == [1, 1]
            async with asyncio.timeout(10):
                async for batch in store.watch(keys.INTENTS, 1):
                    if batch.events[0].key.endswith("node-1") and batch.events[0].current is None:
                        break

    asyncio.run(main())


def test_a_dead_agent_is_told_and_started_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with keeping(tmp_path, "node-0") as (cluster, _, seen):
            await cluster.until_created(1)
            cluster.kill("node-0")
            await cluster.until_created(2)
            assert any(not process.alive for processes in seen for process in processes)

    asyncio.run(main())


def test_an_agent_that_keeps_dying_is_started_ever_more_slowly(tmp_path: Path) -> None:
    async def main() -> None:
        async with keeping(tmp_path, "node-0") as (cluster, _, _):
            begun_s = asyncio.get_running_loop().time()
            for life in range(1, 7):
                await cluster.until_created(life)
                cluster.kill("node-0")
            # 0.02 + 0.04 + 0.08 + 0.16 + 0.32
            assert asyncio.get_running_loop().time() - begun_s > 0.6

    asyncio.run(main())


def test_a_creation_that_fails_is_tried_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with keeping(tmp_path, "node-0", failures=1) as (cluster, _, _):
            await cluster.until_created(1)
            assert len(cluster.intents_seen) == 2

    asyncio.run(main())


def test_an_intent_left_by_a_crash_is_carried_out_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        # With this delay an ordinary dead agent would not be started within the test.
        async with keeping(tmp_path, "node-0", intents=("node-0",), respawn_delay_s=3600.0) as (cluster, _, _):
            await cluster.until_created(1)
            cluster.kill("node-0")

    asyncio.run(main())
