"""Jobs with checkpoints that a controller knows."""

from __future__ import annotations

from trainctl.protos.v1 import job_pb2
from unit.controller.controller_harness import Client, FakeAgent, Running, create, spec


async def listed(client: Client) -> job_pb2.ListCheckpointsResponse:
    found: job_pb2.ListCheckpointsResponse = await client.call(
        "ListCheckpoints", job_pb2.ListCheckpointsRequest(name="a")
    )
    return found


async def started(running: Running, *, keep: int = 3) -> tuple[FakeAgent, job_pb2.Job]:
    agent = await running.agent()
    job = spec(steps=100)
    job["spec"]["checkpoint"] = {"keep": {"last": keep}}
    await running.client.call("CreateJob", create(job))
    return agent, await running.client.until_phase("a", "RUNNING")
