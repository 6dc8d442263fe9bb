"""The gRPC server: options, services, health, reflection."""

from __future__ import annotations

from collections.abc import Sequence

import grpc
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection

from trainctl.controller.rpc.interceptor import Gate
from trainctl.controller.rpc.listening import OPTIONS, SHUTDOWN_GRACE_S, bind
from trainctl.controller.rpc.services import Services
from trainctl.protos.v1 import access_pb2_grpc, agent_pb2_grpc, job_pb2_grpc, join_pb2_grpc

PEOPLE = ("JobService", "AccessService", "JoinTokenService", "JoinService")
AGENTS = ("AgentService",)


class RpcServer:
    """Serves until ``stop``. Made and used in one event loop.

    Args:
        services: what can answer.
        gate: lets calls in.
        names: which of them answer here.
        credentials: of the port; None: it is not encrypted.
    """

    def __init__(
        self, services: Services, gate: Gate, names: Sequence[str] = (*PEOPLE, *AGENTS),
        credentials: grpc.ServerCredentials | None = None,
    ) -> None:  # fmt: skip
        self._server = aio.server(interceptors=(gate,), options=OPTIONS)
        self._credentials = credentials
        self._names = tuple(f"trainctl.v1.{name}" for name in names)
        for name in names:
            _add(name, services, self._server)
        self._health = health_aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflected = (*self._names, "grpc.health.v1.Health", reflection.SERVICE_NAME)
        reflection.enable_server_reflection(reflected, self._server)

    def bind(self, host: str, port: int) -> str:
        """See ``listening.bind``."""
        return bind(self._server, host, port, self._credentials)

    async def start(self) -> None:
        """Answers from now on."""
        await self._server.start()
        for name in ("", *self._names, "leader"):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    async def stop(self) -> None:
        """Refuses new calls and ends open ones after a short grace."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(SHUTDOWN_GRACE_S)


def _add(name: str, services: Services, server: aio.Server) -> None:
    match name:
        case "JobService":
            job_pb2_grpc.add_JobServiceServicer_to_server(services.jobs, server)
        case "AccessService":
            access_pb2_grpc.add_AccessServiceServicer_to_server(services.access, server)
        case "JoinService":
            join_pb2_grpc.add_JoinServiceServicer_to_server(services.join, server)
        case "JoinTokenService":
            join_pb2_grpc.add_JoinTokenServiceServicer_to_server(services.join_tokens, server)
        case _:
            agent_pb2_grpc.add_AgentServiceServicer_to_server(services.agents, server)
