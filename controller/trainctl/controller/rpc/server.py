"""The gRPC server: options, services, health, reflection."""

from __future__ import annotations

import socket

from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection

from trainctl.controller.rpc.agent_service import AgentService
from trainctl.controller.rpc.interceptor import Gate
from trainctl.controller.rpc.job_service import JobService
from trainctl.core.errors import ConflictError
from trainctl.protos.v1 import agent_pb2, agent_pb2_grpc, job_pb2, job_pb2_grpc

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
"""Of what clients send. An agent's observation of 1,000 workers is well below; a job spec is at most 256 KiB."""
SHUTDOWN_GRACE_S = 0.5

_OPTIONS = (
    # With port sharing two controllers would bind the same port in silence, and the kernel would split the agents.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", 4 * MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
)
_SERVICES = (
    job_pb2.DESCRIPTOR.services_by_name["JobService"].full_name,
    agent_pb2.DESCRIPTOR.services_by_name["AgentService"].full_name,
)


class RpcServer:
    """Serves until ``stop``. Made and used in one event loop."""

    def __init__(self, jobs: JobService, agents: AgentService, gate: Gate) -> None:
        self._server = aio.server(interceptors=(gate,), options=_OPTIONS)
        job_pb2_grpc.add_JobServiceServicer_to_server(jobs, self._server)
        agent_pb2_grpc.add_AgentServiceServicer_to_server(agents, self._server)
        self._health = health_aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (*_SERVICES, "grpc.health.v1.Health", reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)

    def bind(self, host: str, port: int) -> str:
        """Takes the port (0: any free one) and returns the address.

        Raises:
            ConflictError: the port is taken or the host is not ours.
        """
        try:
            # gRPC does not say why it cannot have a port, and writes to stderr itself: so a plain socket tries first.
            socket.create_server((host, port)).close()
            bound = self._server.add_insecure_port(f"{host}:{port}")
        except (OSError, RuntimeError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise ConflictError(
                f"cannot listen on {host}:{port}: {why}", hint="choose another port, or 0 for any that is free"
            ) from error
        return f"{host}:{bound}"

    async def start(self) -> None:
        """Answers from now on."""
        await self._server.start()
        for name in ("", *_SERVICES, "leader"):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    async def stop(self) -> None:
        """Refuses new calls and ends open ones after a short grace."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(SHUTDOWN_GRACE_S)
