"""Without it a new controller on one's own machine could start second agents beside those that still run."""

import asyncio
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from contracts.cluster_contract import ClusterContract
from trainctl.controller.cluster.local import LocalCluster
from trainctl.controller.cluster.port import AgentRequest
from trainctl.core.errors import UnavailableError

NODES = [AgentRequest(node="node-1", slots=2), AgentRequest(node="node-0", slots=2)]


def sleeper(request: AgentRequest, folder: Path) -> Sequence[str]:
    return [sys.executable, "-c", "import signal; signal.pause()"]


class TestLocalCluster(ClusterContract):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> Iterator[None]:
        self.folder = tmp_path
        yield
        asyncio.run(end_all(tmp_path))

    def cluster(self) -> LocalCluster:
        return LocalCluster(self.folder, NODES, sleeper)

    def test_a_new_controller_adopts_the_agents(self) -> None:
        async def start() -> int:
            cluster = self.cluster()
            pid = (await cluster.create(NODES[0])).pid
            await cluster.close()
            return pid

        async def adopt() -> int:
            cluster = self.cluster()
            pid = (await cluster.create(NODES[0])).pid
            await cluster.close()
            return pid

        assert asyncio.run(start()) == asyncio.run(adopt())

    def test_agent_that_cannot_start_is_said_so(self) -> None:
        async def scenario() -> None:
            cluster = LocalCluster(self.folder, NODES, lambda request, folder: ["/does/not/exist"])
            with pytest.raises(UnavailableError, match="cannot start the agent of node-1"):
                await cluster.create(NODES[0])

        asyncio.run(scenario())

    @pytest.mark.parametrize("content", ["[]", '{"pid": null, "start_ticks": 1}', "[" * 100_000])
    def test_a_damaged_record_is_no_agent_until_one_is_started(self, content: str) -> None:
        async def scenario() -> None:
            cluster = self.cluster()
            file = self.folder / "node-1" / "agent.json"
            file.parent.mkdir()
            file.write_text(content)
            assert await cluster.observe() == ()
            await cluster.delete("node-1")
            pid = (await cluster.create(NODES[0])).pid
            assert [agent.pid for agent in await cluster.observe()] == [pid]
            await cluster.close()

        asyncio.run(scenario())


async def end_all(folder: Path) -> None:
    cluster = LocalCluster(folder, NODES, sleeper)
    for request in NODES:
        await cluster.delete(request.node)
    await cluster.close()
