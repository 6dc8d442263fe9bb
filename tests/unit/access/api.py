"""Every method of the API, called by its name, with a token of one's choice."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor
from grpc import aio

from trainctl.core.errors import TrainctlError
from trainctl.protos.status import error_from_rpc
from trainctl.protos.v1 import access_pb2, agent_pb2, job_pb2, join_pb2
from trainctl.protos.version import call_metadata
from unit.controller.controller_harness import Running
from waiting import PATIENCE_S

FILES = (job_pb2, agent_pb2, access_pb2, join_pb2)


def methods() -> Iterator[MethodDescriptor]:
    """All methods of all services."""
    for file in FILES:
        for service in file.DESCRIPTOR.services_by_name.values():
            yield from service.methods


def path_of(method: MethodDescriptor) -> str:
    """``trainctl.v1.JobService/GetJob``."""
    return f"{method.containing_service.full_name}/{method.name}"


def message_of(method: MethodDescriptor) -> type[Any]:
    """The class of its requests."""
    kind: type[Any] = message_factory.GetMessageClass(method.input_type)
    return kind


def _raw(value: bytes) -> bytes:
    return value


@dataclass(frozen=True, slots=True)
class Api:
    """Calls with one token."""

    channel: aio.Channel
    token: str

    async def raw(self, path: str, data: bytes, *, streams: tuple[bool, bool], metadata: Any = None) -> bytes:
        """The first answer, or none. The streams are what the caller believes, whatever the method is."""
        carried = call_metadata(self.token) if metadata is None else metadata
        coders: Any = {"request_serializer": _raw, "response_deserializer": _raw}

        async def requests() -> AsyncIterator[bytes]:
            yield data

        if streams[0]:
            call: Any = (self.channel.stream_stream if streams[1] else self.channel.stream_unary)(f"/{path}", **coders)
            answer = call(requests(), metadata=carried, timeout=PATIENCE_S)
        else:
            call = (self.channel.unary_stream if streams[1] else self.channel.unary_unary)(f"/{path}", **coders)
            answer = call(data, metadata=carried, timeout=PATIENCE_S)
        if not streams[1]:
            return bytes(await answer)
        try:
            async for one in answer:
                return bytes(one)
            return b""
        finally:
            answer.cancel()

    async def call(self, method: MethodDescriptor, request: Any) -> Any:
        """The answer, of a stream the first.

        Raises:
            TrainctlError: what the controller says.
        """
        streams = (method.client_streaming, method.server_streaming)
        try:
            data = await self.raw(path_of(method), request.SerializeToString(), streams=streams)
        except grpc.RpcError as error:
            raise error_from_rpc(error) from error
        return message_factory.GetMessageClass(method.output_type).FromString(data)

    async def by_name(self, name: str, request: Any) -> Any:
        """The same, by the method's short name."""
        return await self.call(next(method for method in methods() if method.name == name), request)

    async def refusal(self, method: MethodDescriptor, request: Any) -> TrainctlError | None:
        """Why it was refused; None if it was answered."""
        try:
            await self.call(method, request)
        except TrainctlError as error:
            return error
        return None


def with_token(running: Running, token: str) -> Api:
    """Calls on the running controller."""
    return Api(running.client.channel, token)


def own(running: Running) -> Api:
    """Calls with the controller's own token."""
    _, bearer = running.client.metadata[0]
    return Api(running.client.channel, bearer.removeprefix("Bearer "))


async def token_for(running: Running, name: str, *grants: tuple[str, str], ttl_s: float = 0.0) -> str:
    """A new token."""
    request = access_pb2.CreateTokenRequest(
        name=name, grants=[access_pb2.Grant(tenant=tenant, role=role) for tenant, role in grants], ttl_s=ttl_s
    )
    return str((await own(running).by_name("CreateToken", request)).secret)
