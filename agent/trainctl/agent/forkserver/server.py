"""The loop of the fork server: fork what the agent asks for, report what ended."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import sys
from collections.abc import Sequence

from trainctl.agent.forkserver import messages
from trainctl.agent.forkserver.child import run_child
from trainctl.agent.forkserver.messages import Exited, Refused, Spawn, Spawned, Up
from trainctl.agent.forkserver.preloading import Preloaded


def serve(channel: socket.socket, preloaded: Preloaded) -> None:
    """Tells the agent that everything is there, then forks for it until it leaves; then no child is left."""
    own = os.pidfd_open(os.getpid())
    try:
        up = Up(pid=os.getpid(), threads=preloaded.threads, preload_s=preloaded.seconds)
        messages.send(channel, up, (own,))
    except BrokenPipeError:  # the agent has ended meanwhile, and said why
        return
    finally:
        os.close(own)
    ForkServer(channel).serve()


class ForkServer:
    """Parent of an agent's children. Must stay single-threaded: a fork copies only the calling thread.

    Args:
        channel: packet socket to the agent. When it ends, the server ends all children and itself.
    """

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._selector = selectors.DefaultSelector()
        self._selector.register(channel, selectors.EVENT_READ, None)
        self._children: dict[int, int] = {}  # pid -> pidfd, readable once the child ended

    def serve(self) -> None:
        """Runs until the agent leaves; then no child is left."""
        while self._serve_once():
            pass
        for pidfd in self._children.values():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        for pid in tuple(self._children):
            self._reap(pid)

    def _serve_once(self) -> bool:
        for key, _ in self._selector.select():
            if key.data is not None:
                self._report(Exited(pid=key.data, code=self._reap(key.data)))
                continue
            packet = messages.receive(self._channel)
            if packet is None:
                return False
            spawn, fds = packet
            if isinstance(spawn, Spawn):
                self._spawn(spawn, fds)
        return True

    def _spawn(self, spawn: Spawn, fds: Sequence[int]) -> None:
        sys.stdout.flush()
        sys.stderr.flush()  # what is still buffered would be printed once more by the child
        parent_pid = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            self._report(Refused(request=spawn.request, message=f"fork: {error}"))
        else:
            if pid == 0:
                self._leave()
                run_child(spawn, fds, parent_pid)
            pidfd = os.pidfd_open(pid)
            self._children[pid] = pidfd
            self._selector.register(pidfd, selectors.EVENT_READ, pid)
            self._report(Spawned(request=spawn.request, pid=pid), (pidfd,))
        finally:
            for fd in fds:
                os.close(fd)

    def _leave(self) -> None:
        """In the child: closes what belongs to the server."""
        self._selector.close()
        self._channel.close()
        for pidfd in self._children.values():
            os.close(pidfd)

    def _reap(self, pid: int) -> int:
        """Waits for a child that ended, after ending what it left behind in its process group; its exit code."""
        pidfd = self._children.pop(pid)
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOWAIT)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)  # before the wait, so that the number cannot belong to somebody else yet
        _, status = os.waitpid(pid, 0)
        self._selector.unregister(pidfd)
        os.close(pidfd)
        return os.waitstatus_to_exitcode(status)

    def _report(self, message: messages.ServerMessage, fds: Sequence[int] = ()) -> None:
        with contextlib.suppress(ConnectionError):  # the agent is gone: the next read says so
            messages.send(self._channel, message, fds)
