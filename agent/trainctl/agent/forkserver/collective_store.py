"""The collective store beside an agent: a process of its own, so that no rank's death takes the store with it."""

from __future__ import annotations

import os
import signal


def main(report_fd: int, host: str) -> None:
    """Serves a store on ``host`` and a free port, writes the port to ``report_fd``, and stays until killed."""
    from trainctl.parallel.collectives.serve_store import serve_store

    store = serve_store(host)
    os.write(report_fd, str(store.port).encode())
    os.close(report_fd)
    while True:
        signal.pause()
