"""How the agent calls its controllers: plainly with a token, or with certificates on the port that takes them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Protocol

import grpc

from trainctl.core.errors import TrainctlError
from trainctl.core.system.cancelling import heeding_cancellation
from trainctl.protos.channels import COMMON_OPTIONS
from trainctl.protos.status import error_from_rpc
from trainctl.protos.tls_failures import Wanted, why_not
from trainctl.protos.v1 import agent_pb2, agent_pb2_grpc, join_pb2, join_pb2_grpc
from trainctl.protos.version import call_metadata

if TYPE_CHECKING:  # without TLS nothing of it is loaded
    from trainctl.agent.security.identity import Identity, NodeCertificate
    from trainctl.agent.security.trust import Given

_LOG = logging.getLogger(__name__)
_CALL_S = 10.0
_HOW_TO_JOIN = "start the agent with --join-token-file FILE; `trainctl nodes join-token --out FILE` makes it"
_HOW_TO_LEAVE = " If TLS was taken away on purpose, remove the folder tls of this agent's --dir"
_RETRY_S = 5.0
_MAX_MESSAGE_BYTES = 16 * 1024 * 1024
CHANNEL_OPTIONS = (
    *COMMON_OPTIONS,
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # How long one tries to connect to a machine that is gone, before the next controller is asked.
    ("grpc.min_reconnect_backoff_ms", 3000),
    # Each link dials for itself: a connection shared within a process would hand on another one's back-off.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    # Else gRPC measures the line with pings of its own: many more than there are messages.
    ("grpc.http2.bdp_probe", 0),
)


class Calling(Protocol):
    """Connections to controllers."""

    def open(self, target: str) -> AbstractAsyncContextManager[agent_pb2_grpc.AgentServiceAsyncStub]:
        """The service of the controller at ``target``, for as long as the block lasts.

        Raises:
            grpc.aio.AioRpcError: it was asked for something on the way, and refused or did not answer.
            TrainctlError: this agent cannot call anybody.
        """
        ...

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes along with each call."""
        ...

    async def outdated(self, stub: agent_pb2_grpc.AgentServiceAsyncStub) -> None:
        """Returns when a new connection has to take over from the one of ``stub``."""
        ...

    async def why(self, target: str) -> TrainctlError | None:
        """What certificates have to do with the silence of a controller; None if nothing."""
        ...


class PlainCalling:
    """Implements ``Calling`` without encryption.

    Args:
        token: reads the bearer token; asked before each connection, so that a new one is taken up.
    """

    def __init__(self, token: Callable[[], str]) -> None:
        self._token = token

    @asynccontextmanager
    async def open(self, target: str) -> AsyncGenerator[agent_pb2_grpc.AgentServiceAsyncStub, None]:
        """See ``Calling.open``."""
        async with grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS) as channel:
            yield agent_pb2_grpc.AgentServiceStub(channel)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """See ``Calling.metadata``."""
        return call_metadata(self._token())

    async def outdated(self, stub: agent_pb2_grpc.AgentServiceAsyncStub) -> None:
        """See ``Calling.outdated``."""
        await asyncio.Event().wait()

    async def why(self, target: str) -> TrainctlError | None:
        """See ``Calling.why``."""
        return await asyncio.to_thread(why_not, target, Wanted(ca=None, how_tls=_HOW_TO_JOIN))


class CertifiedCalling:
    """Implements ``Calling`` with the node's certificate; gets one where there is none, and renews it.

    Args:
        identity: of this node.
        given: what it was started with.
        node: its name.
    """

    def __init__(self, identity: Identity, given: Given, node: str) -> None:
        self._identity = identity
        self._given = given
        self._node = node
        self._agents_address = ""
        self._known: dict[str, str] = {}

    @asynccontextmanager
    async def open(self, target: str) -> AsyncGenerator[agent_pb2_grpc.AgentServiceAsyncStub, None]:
        """See ``Calling.open``."""
        certificate, address = self._identity.valid(), self._known.pop(target, "")
        self._agents_address = ""
        if certificate is None or not address:
            certificate, address = await self._prepare(target, certificate)
        own = grpc.ssl_channel_credentials(certificate.authority, self._identity.key, certificate.pem)
        self._agents_address = address
        async with grpc.aio.secure_channel(address, own, options=CHANNEL_OPTIONS) as channel:
            yield agent_pb2_grpc.AgentServiceStub(channel)
        self._known[target] = address  # nothing went wrong: the next connection need not ask again

    async def _prepare(self, target: str, certificate: NodeCertificate | None) -> tuple[NodeCertificate, str]:
        """Asks at the API port for a certificate, if there is none, and where sessions are opened."""
        credentials = grpc.ssl_channel_credentials(self._authority())
        async with grpc.aio.secure_channel(target, credentials, options=CHANNEL_OPTIONS) as channel:
            stub = join_pb2_grpc.JoinServiceStub(channel)
            if certificate is None:
                certificate = await self._join(stub)
            located = await stub.Locate(join_pb2.LocateRequest(), metadata=self.metadata(), timeout=_CALL_S)
        host, _, port = located.agents_address.rpartition(":")
        return certificate, f"{host or target.rpartition(':')[0]}:{port}"

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """See ``Calling.metadata``."""
        return call_metadata("")

    async def outdated(self, stub: agent_pb2_grpc.AgentServiceAsyncStub) -> None:
        """Renews the certificate in its time, however often it takes; then the next connection shows the new one."""
        while (certificate := self._identity.certificate) is not None:
            await asyncio.sleep(max(0.0, certificate.due_s - time.time()))
            try:
                request = agent_pb2.RenewRequest(certificate_request=self._identity.request())
                answer = await heeding_cancellation(stub.Renew(request, metadata=self.metadata(), timeout=_CALL_S))
                renewed = self._identity.keep(answer.certificate, answer.authority)
            except (grpc.aio.AioRpcError, TrainctlError) as error:
                known = error if isinstance(error, TrainctlError) else error_from_rpc(error)
                _LOG.warning("the certificate could not be renewed yet: %s", known)
                left_s = certificate.ends_s - time.time()
                await asyncio.sleep(min(_RETRY_S, max(0.1, left_s / 4)))
                continue
            _LOG.info("renewed the certificate: good for %.0f s", renewed.ends_s - time.time())
            return

    async def why(self, target: str) -> TrainctlError | None:
        """See ``Calling.why``."""
        try:
            trusting = Wanted(ca=self._authority(), ca_origin=self._origin(), how_clear=_HOW_TO_LEAVE)
        except TrainctlError as error:
            return error
        found = await asyncio.to_thread(why_not, target, trusting)
        certificate = self._identity.certificate
        if found is not None or certificate is None or not self._agents_address:
            return found
        wanted = Wanted(
            ca=certificate.authority,
            ca_origin="the authority that this agent got when it joined",
            certificate=certificate.pem,
            key=self._identity.key,
            ends_s=certificate.ends_s,
        )
        return await asyncio.to_thread(why_not, self._agents_address, wanted)

    def _authority(self) -> bytes:
        kept = self._identity.certificate
        return self._given.authority(kept.authority if kept is not None else None)

    def _origin(self) -> str:
        return f"--ca-file {self._given.ca_file}" if self._given.ca_file else "the authority that the join token names"

    async def _join(self, stub: join_pb2_grpc.JoinServiceAsyncStub) -> NodeCertificate:
        former = self._identity.certificate
        text = self._given.join_text(
            "this agent's certificate has expired" if former else "this agent has no certificate"
        )
        request = join_pb2.JoinRequest(
            node=self._node, certificate_request=self._identity.request(), token=text.credential
        )
        answer = await stub.Join(request, metadata=self.metadata(), timeout=_CALL_S)
        certificate = self._identity.keep(answer.certificate, answer.authority)
        _LOG.info("joined as %s: the certificate is good for %.0f s", self._node, certificate.ends_s - time.time())
        return certificate
