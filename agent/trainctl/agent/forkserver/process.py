"""The process of a fork server as its agent sees it: one that it started, or the fork of one that is shared."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
from typing import Protocol

from trainctl.agent.forkserver import messages
from trainctl.agent.forkserver.messages import Hello


class ServerProcess(Protocol):
    """How an agent ends its fork server; the channel between them is told apart."""

    @property
    def pid(self) -> int:
        """Its process id; 0 as long as that is not known."""
        ...

    def came_up(self, pid: int, pidfd: int) -> None:
        """It said so; the descriptor now belongs to this object."""
        ...

    def kill(self) -> None:
        """Ends it, whatever it does at the moment."""
        ...

    def wait(self, timeout_s: float) -> bool:
        """Waits, without the event loop, until it has ended; whether it has."""
        ...


class OwnProcess:
    """Implements ``ServerProcess`` with a child of this agent.

    Args:
        preload: modules it imports before it forks anything.
        channel: its end of the channel.
    """

    def __init__(self, preload: tuple[str, ...], channel: socket.socket) -> None:
        command = [
            *(sys.executable, "-m", "trainctl.agent.forkserver", "--channel", str(channel.fileno())),
            *("--parent", str(os.getpid()), "--preload", ",".join(preload)),
        ]
        self._process = subprocess.Popen(
            command, pass_fds=(channel.fileno(),), stdin=subprocess.DEVNULL, env=_environment(), start_new_session=True
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def came_up(self, pid: int, pidfd: int) -> None:
        """It said so."""
        os.close(pidfd)  # a child cannot be mistaken for another process before it is waited for

    def kill(self) -> None:
        """By SIGKILL."""
        self._process.kill()

    def wait(self, timeout_s: float) -> bool:
        """Whether it has ended by then."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True


class SharedProcess:
    """Implements ``ServerProcess`` with the fork of a server that this machine's agents share.

    Args:
        preload: modules that the fork imports, if they are not there yet.
        channel: connected to that server.

    Raises:
        OSError: it has left.
    """

    def __init__(self, preload: tuple[str, ...], channel: socket.socket) -> None:
        hello = Hello(preload=preload, env=_environment(), folder=os.getcwd())
        messages.send(channel, hello, (sys.stdout.fileno(), sys.stderr.fileno()))
        self._pid, self._pidfd = 0, -1

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._pid

    def came_up(self, pid: int, pidfd: int) -> None:
        """It said so."""
        self._pid, self._pidfd = pid, pidfd

    def kill(self) -> None:
        """By SIGKILL."""
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def wait(self, timeout_s: float) -> bool:
        """Whether it has ended by then."""
        if self._pidfd < 0:  # it finds the channel closed before it forks anything
            return True
        ended = select.poll()
        ended.register(self._pidfd, select.POLLIN)
        if not ended.poll(timeout_s * 1000):
            return False
        os.close(self._pidfd)
        self._pidfd = -1
        return True


def _environment() -> dict[str, str]:
    # OpenBLAS would start threads when numpy is imported, and a fork copies none of them.
    return {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
