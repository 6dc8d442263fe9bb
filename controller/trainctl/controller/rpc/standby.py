"""The server of a controller that waits for its turn: it says who leads, and tells probes that it lives."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio

from trainctl.controller.rpc.interceptor import OWN_SERVICES
from trainctl.controller.rpc.listening import OPTIONS, bind
from trainctl.core.errors import TrainctlError, UnavailableError
from trainctl.core.units import format_time
from trainctl.protos.status import code_of, status_of, trailing_metadata


class NotLeaderError(UnavailableError):
    """This controller stands by: another one leads, or something keeps it from leading."""

    code = "NOT_LEADER"


@dataclass(frozen=True, slots=True)
class FailedTry:
    """When this controller last tried to lead, or to find out who does, and why it could not; Unix seconds."""

    at_s: float
    error: TrainctlError


def refusal(leader: str, failed: FailedTry | None) -> NotLeaderError:
    """What everybody is told who asks a controller that stands by. Pure.

    Args:
        leader: who led when the store last answered; empty if nobody did.
        failed: what came after that; its code and its hint go along.
    """
    if failed is None:
        return NotLeaderError(
            f"this controller stands by; {leader} leads" if leader else "this controller stands by; nobody leads yet",
            hint="name all controllers, separated by commas, and the one that leads is found (trainctl: --address, "
            "trainctl-agent: --controller)",
        )
    at = format_time(failed.at_s)
    if leader:
        known = f"{leader} led when the store last answered, and at {at} it did not"
    else:
        known = f"nobody leads yet: it tried at {at} and could not"
    error = NotLeaderError(f"this controller stands by; {known}: {failed.error}", hint=failed.error.hint)
    error.cause = failed.error.cause or failed.error.code
    return error


class StandbyServer:
    """Serves from ``start`` to ``stop``. Made and used in one event loop.

    Args:
        credentials: of the port; None: it is not encrypted.

    Attributes:
        leader: who leads and where, for those who ask; empty while nobody does.
        failed: why this one does not lead although nobody else does, or does not know; None: there was no such failure.
    """

    def __init__(self, credentials: grpc.ServerCredentials | None = None) -> None:
        self.leader = ""
        self.failed: FailedTry | None = None
        self._credentials = credentials
        self._server = aio.server(options=OPTIONS)
        self._server.add_generic_rpc_handlers((_RefuseAll(self),))
        self._health = health_aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)

    def bind(self, host: str, port: int) -> str:
        """See ``listening.bind``."""
        return bind(self._server, host, port, self._credentials)

    async def start(self) -> None:
        """Answers from now on."""
        await self._server.start()
        await self._health.set("", health_pb2.HealthCheckResponse.SERVING)
        await self._health.set("leader", health_pb2.HealthCheckResponse.NOT_SERVING)

    async def stop(self) -> None:
        """Gives the port free at once: whoever asks finds the next server there."""
        await self._server.stop(None)


class _RefuseAll(grpc.GenericRpcHandler):
    def __init__(self, server: StandbyServer) -> None:
        self._server = server

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Every method of ours, whatever its kind: a stream of anything is refused before it is read."""
        if not str(handler_call_details.method).startswith(OWN_SERVICES):
            return None
        return grpc.stream_stream_rpc_method_handler(self._refuse)

    async def _refuse(self, _: AsyncIterator[bytes], context: aio.ServicerContext[Any, Any]) -> None:
        error = refusal(self._server.leader, self._server.failed)
        await context.abort(code_of(error), status_of(error).message, trailing_metadata(error))
