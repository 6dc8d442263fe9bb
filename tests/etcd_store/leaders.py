"""Who leads, and a client of it."""

from __future__ import annotations

import asyncio

from grpc import aio

from etcd_store.controllers import TOKEN, ControllerProcess
from trainctl.protos.v1 import job_pb2
from trainctl.protos.version import call_metadata
from unit.controller.controller_harness import Client


async def client_of(one: ControllerProcess) -> Client:
    return Client(aio.insecure_channel(one.address), call_metadata(TOKEN))


async def leader_of(both: list[ControllerProcess], *, other_than: ControllerProcess | None = None) -> ControllerProcess:
    """Whoever answers."""
    while True:
        for one in both:
            if one is other_than or not one.address:
                continue
            client = await client_of(one)
            try:
                await client.call("ListJobs", job_pb2.ListJobsRequest(), timeout_s=1.0)
                return one
            except Exception:
                continue
            finally:
                await client.channel.close()
        await asyncio.sleep(0.02)
