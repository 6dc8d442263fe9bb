"""Deadlines of calls, which end them on the server, too; and one port for one server.

Without it calls that nobody waits for any more could fill a controller.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any
from unittest.mock import MagicMock

import grpc
import pytest
from grpc import aio

from trainctl.controller.access.limits import Limits
from trainctl.controller.rpc import interceptor
from trainctl.controller.rpc.admission import Admission
from trainctl.controller.rpc.authentication import BearerToken
from trainctl.controller.rpc.interceptor import Gate
from trainctl.controller.rpc.server import RpcServer
from trainctl.controller.rpc.standby import StandbyServer
from trainctl.core.errors import ConflictError
from trainctl.protos.status import error_from_rpc
from trainctl.protos.v1 import job_pb2, job_pb2_grpc
from trainctl.protos.version import call_metadata
from waiting import PATIENCE_S


class Counts:
    def __init__(self) -> None:
        self.codes: list[str] = []
        self.counted = asyncio.Event()

    def inc(self, name: str, amount: float = 1, **labels: str) -> None:
        self.codes.append(labels["grpc_code"])
        self.counted.set()

    def observe(self, name: str, seconds: float, **labels: str) -> None:
        pass


def gate(token: str, counts: Counts) -> Gate:
    admission = Admission(
        owner_of=lambda tenant, name: None,
        audit=None,
        limits=Limits(),
        metrics=counts,
        now_s=lambda: 0.0,
        monotonic_s=lambda: 0.0,
    )
    return Gate(admission, BearerToken(token), counts)


class Stuck:
    """Never answers, and knows whether it was told to give up."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    async def get_job(self, request: Any, context: Any) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.set()


@contextlib.asynccontextmanager
async def serving(stuck: Stuck, counts: Counts) -> AsyncIterator[Any]:
    server = aio.server(interceptors=(gate("secret", counts),))
    method = grpc.unary_unary_rpc_method_handler(
        stuck.get_job,
        request_deserializer=job_pb2.GetJobRequest.FromString,
        response_serializer=job_pb2.GetJobResponse.SerializeToString,
    )
    handler = grpc.method_handlers_generic_handler("trainctl.v1.JobService", {"GetJob": method})
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield job_pb2_grpc.JobServiceStub(channel)
    finally:
        await server.stop(None)


@pytest.mark.parametrize("timeout_s", [None, 2 * PATIENCE_S], ids=["no deadline", "a long one"])
def test_no_unary_call_takes_longer_than_any_may(monkeypatch: pytest.MonkeyPatch, timeout_s: float | None) -> None:
    monkeypatch.setattr(interceptor, "LONGEST_UNARY_S", 0.2)

    async def scenario() -> None:
        stuck, counts = Stuck(), Counts()
        async with asyncio.timeout(PATIENCE_S), serving(stuck, counts) as stub:
            with pytest.raises(grpc.RpcError) as caught:
                await stub.GetJob(job_pb2.GetJobRequest(name="a"), metadata=call_metadata("secret"), timeout=timeout_s)
            assert stuck.ended.is_set()
            error = error_from_rpc(caught.value)
            assert (error.code, str(error)) == ("DEADLINE_EXCEEDED", "no answer within 0.2 s")
            await counts.counted.wait()  # the caller may have its answer a moment before
            assert counts.codes == ["DEADLINE_EXCEEDED"]

    asyncio.run(scenario())


def test_the_callers_deadline_ends_the_call_on_the_server() -> None:
    class Context:
        def time_remaining(self) -> float:
            return 0.05

    async def scenario() -> None:
        stuck = Stuck()
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(interceptor.DeadlineExceededError, match="no answer within"):
                async with interceptor._deadline(Context()):
                    await stuck.get_job(None, None)
        assert stuck.ended.is_set()

    asyncio.run(scenario())


def test_two_servers_of_ours_never_share_a_port(monkeypatch: pytest.MonkeyPatch) -> None:
    def rpc_server() -> RpcServer:
        return RpcServer(MagicMock(), gate("secret", Counts()))

    async def scenario() -> None:
        first: RpcServer | StandbyServer
        for first, second in ((rpc_server(), StandbyServer()), (StandbyServer(), rpc_server())):
            async with contextlib.AsyncExitStack() as stack:
                stack.push_async_callback(second.stop)
                stack.push_async_callback(first.stop)
                port = int(first.bind("127.0.0.1", 0).rpartition(":")[2])
                await first.start()
                with pytest.raises(ConflictError, match="cannot listen on"):
                    second.bind("127.0.0.1", port)
                with monkeypatch.context() as at_once:
                    # Both looked at the same moment and found the port free: gRPC itself must not share it.
                    at_once.setattr(socket, "create_server", lambda _: socket.socket())
                    with pytest.raises(ConflictError, match="cannot listen on"):
                        second.bind("127.0.0.1", port)

    asyncio.run(scenario())
