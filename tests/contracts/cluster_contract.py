"""What every Cluster implementation has to keep; a subclass supplies ``cluster``."""

import asyncio
import os
import signal

from trainctl.controller.cluster.port import AgentRequest, Cluster

WITHIN_S = 10.0


class ClusterContract:
    """Inherit and override ``cluster``; its inventory has ``node-0`` and ``node-1``, its agents run until ended."""

    def cluster(self) -> Cluster:
        raise NotImplementedError

    def test_created_agent_is_observed_and_created_once(self) -> None:
        async def scenario() -> None:
            cluster = self.cluster()
            first = await cluster.create(AgentRequest(node="node-0", slots=2))
            again = await cluster.create(AgentRequest(node="node-0", slots=2))
            assert first.pid == again.pid
            assert [(a.node, a.pid, a.alive) for a in await cluster.observe()] == [("node-0", first.pid, True)]
            await cluster.delete("node-0")
            await cluster.close()

        asyncio.run(scenario())

    def test_exit_is_told_at_once_and_the_agent_can_be_created_again(self) -> None:
        async def scenario() -> None:
            cluster, changed = self.cluster(), asyncio.Event()
            cluster.on_change(changed.set)
            first = await cluster.create(AgentRequest(node="node-0", slots=2))
            os.kill(first.pid, signal.SIGKILL)
            async with asyncio.timeout(WITHIN_S):
                await changed.wait()
            assert not any(a.alive for a in await cluster.observe())
            second = await cluster.create(AgentRequest(node="node-0", slots=2))
            assert second.pid != first.pid
            await cluster.delete("node-0")
            await cluster.close()

        asyncio.run(scenario())

    def test_deleted_agent_is_gone_and_deleting_again_does_nothing(self) -> None:
        async def scenario() -> None:
            cluster = self.cluster()
            await cluster.create(AgentRequest(node="node-1", slots=1))
            await cluster.delete("node-1")
            assert not any(a.alive for a in await cluster.observe())
            await cluster.delete("node-1")
            await cluster.delete("never-there")
            await cluster.close()

        asyncio.run(scenario())

    def test_inventory_is_sorted(self) -> None:
        async def scenario() -> None:
            cluster = self.cluster()
            assert [request.node for request in await cluster.inventory()] == ["node-0", "node-1"]
            await cluster.close()

        asyncio.run(scenario())
