"""The collective store beside an agent: a process of its own, so that no rank's death takes the store with it."""

from __future__ import annotations

import os
import signal
import socket


def main(report_fd: int, host: str) -> None:
    """Serves a ``TCPStore`` on ``host`` and a free port, writes the port to ``report_fd``, and stays until killed."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, 0), family=family, backlog=1024)  # torch alone would listen everywhere
    port = listener.getsockname()[1]
    store = TCPStore(host, port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach())
    os.write(report_fd, str(store.port).encode())
    os.close(report_fd)
    while True:
        signal.pause()
