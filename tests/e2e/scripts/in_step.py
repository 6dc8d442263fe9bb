"""As ``ddp_train.py`` but without torch, which takes seconds to load: ranks that go in step, and count.

Where a rank dies the others fail, as they do in a collective and no sooner; where one hangs they wait for it.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from told import behave, note, options  # type: ignore[import-not-found]  # it lies beside this script

SAY_S = 0.5


def main() -> None:
    told = options()
    folder = Path(os.environ["TRAINCTL_WORKDIR"])
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    together = group(folder / f"port-{os.environ['TRAINCTL_GENERATION']}", rank, size)
    note(folder)
    state = folder / "state"
    together()  # before anybody reads what rank 0 will write
    first = int(state.read_text()) if state.exists() else 0
    together()
    print(f"rank {rank} of {size} begins with step {first}", flush=True)
    for step in range(first, told.steps):
        behave(told, folder, rank, step)
        together()
        if rank == 0:
            whole = folder / "state.tmp"
            whole.write_text(str(step + 1))
            whole.rename(state)
            print(f"step {step + 1}", flush=True)
        time.sleep(told.pause)


def group(place: Path, rank: int, size: int) -> Callable[[], None]:
    """A function that returns when all ranks have called it; ``place`` says where rank 0 listens."""
    sockets = _accepted(place, size) if rank == 0 else [_connected(place)]
    for peer in sockets:
        peer.sendall(f"{os.getpid():8}".encode())
    peers = [(peer, int(peer.recv(8, socket.MSG_WAITALL))) for peer in sockets]

    def together() -> None:
        """Rank 0 hears all, then answers all."""
        for exchange in (_hear, _speak) if rank == 0 else (_speak, _hear):
            for peer, pid in peers:
                try:
                    exchange(peer)
                except ConnectionError:
                    _fail_after(pid)

    return together


def _speak(peer: socket.socket) -> None:
    peer.sendall(b".")


def _hear(peer: socket.socket) -> None:
    if not peer.recv(1):
        raise ConnectionResetError


def _fail_after(pid: int) -> NoReturn:
    """Torch needs a moment to notice and to say so; by then it is known how the process that failed first ended."""
    while Path(f"/proc/{pid}").exists():
        time.sleep(0.02)
    time.sleep(SAY_S)
    raise ConnectionError(f"process {pid} has gone")


def _accepted(place: Path, size: int) -> list[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        whole = place.with_suffix(".tmp")
        whole.write_text(str(server.getsockname()[1]))
        whole.rename(place)
        return [server.accept()[0] for _ in range(size - 1)]


def _connected(place: Path) -> socket.socket:
    while not place.exists():
        time.sleep(0.02)
    return socket.create_connection(("127.0.0.1", int(place.read_text())))


if __name__ == "__main__":
    main()
