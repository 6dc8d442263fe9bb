"""Calls to a cluster of etcd members: one of them at a time, the next when it does not answer; deadlines on each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc

from trainctl.controller.store.etcd.address import EtcdAddress
from trainctl.controller.store.etcd.failures import failure_of, is_stale_token
from trainctl.controller.store.port import StoreUnavailableError
from trainctl.core.errors import PermissionDeniedError
from trainctl.core.system.cancelling import heeding_cancellation
from trainctl.protos.channels import COMMON_OPTIONS
from trainctl.protos.etcd import rpc_pb2, rpc_pb2_grpc

R = TypeVar("R")
Metadata = tuple[tuple[str, str], ...]

CALL_TIMEOUT_S = 2.0
"""Of one attempt at one member: longer than an election takes."""
_MAX_MESSAGE_BYTES = 256 << 20
_OPTIONS: Sequence[tuple[str, Any]] = [
    *COMMON_OPTIONS,
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    # etcd drops clients that ping more often than every 5 s, or without a call in progress.
    ("grpc.keepalive_time_ms", 6000),
    ("grpc.keepalive_timeout_ms", 3000),
    ("grpc.http2.ping_timeout_ms", 3000),  # what really ends the wait for a member that is frozen; default: a minute
    ("grpc.http2.max_pings_without_data", 0),  # a watch sends nothing for hours
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]


@dataclass(frozen=True, slots=True)
class Member:
    """One etcd server, and its services."""

    name: str
    channel: grpc.aio.Channel
    kv: rpc_pb2_grpc.KVAsyncStub
    watch: rpc_pb2_grpc.WatchAsyncStub
    lease: rpc_pb2_grpc.LeaseAsyncStub
    auth: rpc_pb2_grpc.AuthAsyncStub
    maintenance: rpc_pb2_grpc.MaintenanceAsyncStub


class EtcdConnection:
    """Channels to all members; the one that answered last is asked first.

    Args:
        address: of the cluster.
    """

    def __init__(self, address: EtcdAddress) -> None:
        self.address = address
        self._credentials = _credentials(address)
        self._password = _read(address.password_file, "password").decode().strip() if address.password_file else ""
        self._members = [self._member(name) for name in address.members]
        self._current = 0
        self._token = ""
        self._token_lock = asyncio.Lock()

    @property
    def member(self) -> Member:
        """The one to ask now."""
        return self._members[self._current]

    async def call(
        self, attempt: Callable[[Member, Metadata, float], Awaitable[R]], what: str, *, again: bool = True
    ) -> R:
        """Carries a call out at the current member; ``again`` says that it may be repeated at the others.

        Raises:
            StoreUnavailableError: no member answered; without ``again`` the outcome is unknown.
            TrainctlError: what etcd refused, as ``failure_of`` tells it.
        """
        left = len(self._members) if again else 1
        while True:
            member = self.member
            try:
                return await heeding_cancellation(self._authorised(attempt, member))
            except grpc.aio.AioRpcError as error:
                left -= 1
                failure = failure_of(error, what=what, member=member.name, address=self.address)
                if not isinstance(failure, StoreUnavailableError):
                    raise failure from error
                self.give_up(member)
                if left == 0:
                    raise failure from error

    async def _authorised(self, attempt: Callable[[Member, Metadata, float], Awaitable[R]], member: Member) -> R:
        metadata = await self.metadata(member)
        try:
            return await attempt(member, metadata, CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            if not is_stale_token(error):
                raise
            self.forget_token(metadata)
            return await attempt(member, await self.metadata(member), CALL_TIMEOUT_S)

    def give_up(self, member: Member) -> None:
        """This member does not answer: the next call goes to another one."""
        if self.member is member:
            self._current = (self._current + 1) % len(self._members)

    async def metadata(self, member: Member) -> Metadata:
        """What goes along with every call: a member without a leader must say so, and who we are."""
        leader = (("hasleader", "true"),)
        if not self.address.user:
            return leader
        async with self._token_lock:
            if not self._token:
                request = rpc_pb2.AuthenticateRequest(name=self.address.user, password=self._password)
                answer = await member.auth.Authenticate(request, timeout=CALL_TIMEOUT_S, metadata=leader)
                self._token = answer.token
            return (*leader, ("token", self._token))

    def forget_token(self, metadata: Metadata) -> None:
        """The token that went along is no longer valid."""
        if ("token", self._token) in metadata:
            self._token = ""

    async def close(self) -> None:
        """Closes all channels."""
        for member in self._members:
            await member.channel.close()

    def _member(self, name: str) -> Member:
        options = list(_OPTIONS)
        if self.address.server_name:
            options.append(("grpc.ssl_target_name_override", self.address.server_name))
        if self._credentials is None:
            channel = grpc.aio.insecure_channel(name, options=options)
        else:
            channel = grpc.aio.secure_channel(name, self._credentials, options=options)
        return Member(
            name,
            channel,
            rpc_pb2_grpc.KVStub(channel),
            rpc_pb2_grpc.WatchStub(channel),
            rpc_pb2_grpc.LeaseStub(channel),
            rpc_pb2_grpc.AuthStub(channel),
            rpc_pb2_grpc.MaintenanceStub(channel),
        )


def _credentials(address: EtcdAddress) -> grpc.ChannelCredentials | None:
    if address.ca is None:
        return None
    return grpc.ssl_channel_credentials(
        root_certificates=_read(address.ca, "certificate of the authority"),
        private_key=_read(address.key, "private key") if address.key else None,
        certificate_chain=_read(address.cert, "certificate") if address.cert else None,
    )


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise PermissionDeniedError(
            f"{what} of the state store cannot be read: {path}: {error.strerror}",
            hint="check the path in the store's address and the rights of the file",
        ) from error
