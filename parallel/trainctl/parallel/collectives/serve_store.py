"""A store that ranks meet at, on a free port of one address."""

from __future__ import annotations

import socket

from torch.distributed import TCPStore  # type: ignore[attr-defined]


def serve_store(host: str) -> TCPStore:
    """Serves a ``TCPStore`` on ``host`` and a free port (``.port``), for as long as the object lives.

    Raises:
        OSError: ``host`` is no address of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, 0), family=family, backlog=1024)  # torch alone would listen everywhere
    port = listener.getsockname()[1]
    return TCPStore(host, port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach())
