"""A port and the settings of every gRPC server of ours."""

from __future__ import annotations

import socket

import grpc
from grpc import aio

from trainctl.core.errors import ConflictError

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
"""Of what clients send. An agent's observation of 1,000 workers is well below; a job spec is at most 256 KiB."""
SHUTDOWN_GRACE_S = 0.5

OPTIONS = (
    # With port sharing two controllers would bind the same port in silence, and the kernel would split the agents.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", 4 * MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    # Else gRPC measures the line with pings of its own as often as a heartbeat comes.
    ("grpc.http2.bdp_probe", 0),
)


def bind(server: aio.Server, host: str, port: int, credentials: grpc.ServerCredentials | None = None) -> str:
    """Takes the port (0: any free one) and returns the address; encrypted with ``credentials``.

    Raises:
        ConflictError: the port is taken or the host is not ours.
    """
    try:
        # gRPC does not say why it cannot have a port, and writes to stderr itself: so a plain socket tries first.
        socket.create_server((host, port)).close()
        where = f"{host}:{port}"
        bound = server.add_secure_port(where, credentials) if credentials else server.add_insecure_port(where)
    except (OSError, RuntimeError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise ConflictError(
            f"cannot listen on {host}:{port}: {why}", hint="choose another port, or 0 for any that is free"
        ) from error
    return f"{host}:{bound}"
