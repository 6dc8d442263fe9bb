"""The gRPC server: options, services, health, reflection."""

from __future__ import annotations

from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection

from trainctl.controller.rpc.agent_service import AgentService
from trainctl.controller.rpc.interceptor import Gate
from trainctl.controller.rpc.job_service import JobService
from trainctl.controller.rpc.listening import OPTIONS, SHUTDOWN_GRACE_S, bind
from trainctl.protos.v1 import agent_pb2, agent_pb2_grpc, job_pb2, job_pb2_grpc

_SERVICES = (
    job_pb2.DESCRIPTOR.services_by_name["JobService"].full_name,
    agent_pb2.DESCRIPTOR.services_by_name["AgentService"].full_name,
)


class RpcServer:
    """Serves until ``stop``. Made and used in one event loop."""

    def __init__(self, jobs: JobService, agents: AgentService, gate: Gate) -> None:
        self._server = aio.server(interceptors=(gate,), options=OPTIONS)
        job_pb2_grpc.add_JobServiceServicer_to_server(jobs, self._server)
        agent_pb2_grpc.add_AgentServiceServicer_to_server(agents, self._server)
        self._health = health_aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (*_SERVICES, "grpc.health.v1.Health", reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)

    def bind(self, host: str, port: int) -> str:
        """See ``listening.bind``."""
        return bind(self._server, host, port)

    async def start(self) -> None:
        """Answers from now on."""
        await self._server.start()
        for name in ("", *_SERVICES, "leader"):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    async def stop(self) -> None:
        """Refuses new calls and ends open ones after a short grace."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(SHUTDOWN_GRACE_S)
