"""Calls that meet a controller at the moment at which it stops standing by: each is answered, or ends at once.

Without it a command or an agent that came at that moment would hear nothing until its deadline: gRPC keeps such a call
to try it again, and now and then forgets it.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import grpc

from trainctl.cli.connection import client
from trainctl.controller.rpc.standby import StandbyServer
from trainctl.protos.v1 import job_pb2, job_pb2_grpc
from trainctl.protos.version import call_metadata

CLIENTS = 4
SWITCHES = 100
DEADLINE_S = 5.0


async def one_after_the_other(port: int) -> int:
    """Controllers that stand by on the same port, each for a moment; the port."""
    for _ in range(SWITCHES if port else 1):
        server = StandbyServer()
        port = int(server.bind("127.0.0.1", port).rpartition(":")[2])
        await server.start()
        await asyncio.sleep(0.02)
        await server.stop()
    return port


def ask(port: int, over: threading.Event) -> Counter[grpc.StatusCode]:
    """How calls ended, each by a client of its own."""
    ends: Counter[grpc.StatusCode] = Counter()
    while not over.is_set():
        with grpc.insecure_channel(f"127.0.0.1:{port}", options=client.OPTIONS) as channel:
            try:
                job_pb2_grpc.JobServiceStub(channel).ListJobs(
                    job_pb2.ListJobsRequest(), timeout=DEADLINE_S, metadata=call_metadata("token")
                )
            except grpc.RpcError as error:
                ends[error.code()] += 1
    return ends


def test_no_call_is_forgotten_when_the_server_changes() -> None:
    port = asyncio.run(one_after_the_other(0))
    over = threading.Event()
    with ThreadPoolExecutor(CLIENTS) as pool:
        asking = [pool.submit(ask, port, over) for _ in range(CLIENTS)]
        try:
            asyncio.run(one_after_the_other(port))
        finally:
            over.set()
        ends = sum((one.result() for one in asking), Counter[grpc.StatusCode]())
    assert ends[grpc.StatusCode.UNAVAILABLE] > SWITCHES
    assert not ends[grpc.StatusCode.DEADLINE_EXCEEDED], ends
