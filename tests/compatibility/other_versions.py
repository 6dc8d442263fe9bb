"""A wire between two of today's parts that lets through only what another version would say or understand.

``wire_1.binpb`` is a descriptor set: the schema of wire version 1 as it was when controllers began to take turns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from trainctl.protos.v1 import agent_pb2, job_pb2

FROZEN = Path(__file__).with_name("wire_1.binpb")
UNKNOWN = b"\xfa\xff\x03\x05later"
"""Field 8191, five bytes: of a version that does not exist yet."""

Filter = Callable[[bytes], bytes]
_FOR_EVER_S = 1e6
"""What a call without a deadline has left is more."""


class OldSchema:
    """The frozen schema in a pool of its own, beside today's."""

    def __init__(self) -> None:
        self._pool = descriptor_pool.DescriptorPool()
        for file in descriptor_pb2.FileDescriptorSet.FromString(FROZEN.read_bytes()).file:
            self._pool.Add(file)

    def method(self, path: str) -> MethodDescriptor | None:
        """The method of ``/service/name``; None if there was none yet."""
        _, service, name = path.split("/")
        try:
            return self._pool.FindServiceByName(service).methods_by_name.get(name)
        except KeyError:
            return None

    def through(self, message: Any) -> Filter:
        """What an old peer reads of a message and would say again: fields that it does not know are gone."""
        old: Any = message_factory.GetMessageClass(message)

        def read(data: bytes) -> bytes:
            found = old.FromString(data)
            found.DiscardUnknownFields()
            return bytes(found.SerializeToString())

        return read


def old_filters(path: str) -> tuple[Filter, Filter] | None:
    """How requests and answers of a method pass an old peer; None if it has no such method."""
    schema = OldSchema()
    method = schema.method(path)
    return None if method is None else (schema.through(method.input_type), schema.through(method.output_type))


def later_filters(path: str) -> tuple[Filter, Filter] | None:
    """Requests and answers as a later version would send them: with a field more in every message, however deep."""
    _, service, name = path.split("/")
    for file in (job_pb2.DESCRIPTOR, agent_pb2.DESCRIPTOR):
        found = file.services_by_name.get(service.rpartition(".")[2])
        if found is not None and name in found.methods_by_name:
            method = found.methods_by_name[name]
            return _adding(method.input_type), _adding(method.output_type)
    return lambda data: data, lambda data: data


def _adding(descriptor: Any) -> Filter:
    message_type: Any = message_factory.GetMessageClass(descriptor)

    def add(data: bytes) -> bytes:
        message = message_type.FromString(data)
        _add_everywhere(message)
        return bytes(message.SerializeToString())

    return add


def _add_everywhere(message: Message) -> None:
    for field, value in message.ListFields():
        kind = field.message_type
        if kind is None or kind.full_name.startswith("google.") or kind.GetOptions().map_entry:
            continue
        for one in value if field.is_repeated else (value,):
            _add_everywhere(one)
    message.MergeFromString(UNKNOWN)


class OtherVersion:
    """A server in front of a controller that passes on what ``filters`` lets through; a context manager.

    Args:
        upstream: ``host:port`` of the controller.
        filters: by path of the method; None: the method is not known here.
        wire: version that is announced to the controller instead of the caller's; empty: the caller's.
    """

    def __init__(
        self, upstream: str, filters: Callable[[str], tuple[Filter, Filter] | None], *, wire: str = ""
    ) -> None:
        self._filters = filters
        self._wire = wire
        self._channel = grpc.insecure_channel(upstream)
        self._server = grpc.server(ThreadPoolExecutor(32))
        self._server.add_generic_rpc_handlers((_PassOn(self),))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self) -> OtherVersion:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()
        self._server.stop(None).wait(10)

    def handler(self, path: str) -> Any:
        """The handler of a method: everything is a stream of bytes."""
        filters = self._filters(path)
        if filters is None:
            return None
        ask, answer = filters
        open_call: Any = self._channel.stream_stream(path)

        def pass_on(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
            left_s = context.time_remaining()
            has_deadline = left_s is not None and left_s < _FOR_EVER_S
            call = open_call(
                map(ask, requests), metadata=self._metadata(context), timeout=left_s if has_deadline else None
            )
            context.add_callback(call.cancel)
            try:
                yield from map(answer, call)
            except grpc.RpcError as error:
                context.set_trailing_metadata(error.trailing_metadata() or ())
                context.abort(error.code(), error.details() or "")

        return grpc.stream_stream_rpc_method_handler(pass_on)

    def _metadata(self, context: Any) -> list[tuple[str, str]]:
        """As it came, but for what gRPC adds by itself."""
        own = {item.key: item.value for item in context.invocation_metadata() if item.key != "user-agent"}
        if self._wire:
            own["x-trainctl-wire"] = self._wire
        return list(own.items())


class _PassOn(grpc.GenericRpcHandler):
    def __init__(self, server: OtherVersion) -> None:
        self._other = server

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return self._other.handler(str(handler_call_details.method))
