"""One fork server from which the agents of a machine get theirs: what is preloaded is loaded once, and lies there once.

Each agent that connects gets a fork, which from then on is its fork server like one that it started itself, and lives
on without this one. What a parent's death does there, this one does here: it watches the agents, and ends the fork of
one that died, even if it is frozen.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import struct
import sys
import traceback
from dataclasses import dataclass
from typing import NoReturn

from trainctl.agent.forkserver import messages
from trainctl.agent.forkserver.messages import Hello
from trainctl.agent.forkserver.preloading import Preloaded, preload
from trainctl.agent.forkserver.server import serve

_HELLO_WITHIN_S = 10.0
_PEER = struct.Struct("iII")  # process, user and group, as the kernel tells them


@dataclass(frozen=True, slots=True)
class _Lent:
    """A fork and whose it is; the descriptors are pidfds."""

    pid: int
    server: int
    agent: int


class SharedForkServer:
    """Forks a fork server for each agent that comes. Must stay single-threaded: a fork copies only the calling thread.

    Args:
        listener: where they come.
        preloaded: what is loaded already.
    """

    def __init__(self, listener: socket.socket, preloaded: Preloaded) -> None:
        self._listener = listener
        self._preloaded = preloaded
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ, None)
        self._lent: dict[int, _Lent] = {}

    def serve(self) -> NoReturn:
        """Runs until it is killed; what was forked lives on."""
        while True:
            for key, _ in self._selector.select():
                if key.data is None:
                    self._welcome()
                elif (lent := self._lent.get(key.data)) is not None:
                    self._end(lent, key.fd)

    def _welcome(self) -> None:
        channel, _ = self._listener.accept()
        with channel:
            pid, user, _ = _PEER.unpack(channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
            if user != os.geteuid():
                print(f"fork server: user {user} was turned away (process {pid})", file=sys.stderr)
                return
            try:
                agent = os.pidfd_open(pid)
            except ProcessLookupError:
                return  # it has ended meanwhile
            self._fork(channel, agent)

    def _fork(self, channel: socket.socket, agent: int) -> None:
        sys.stdout.flush()
        sys.stderr.flush()  # what is still buffered would be printed once more by the child
        try:
            pid = os.fork()
        except OSError as error:  # the agent sees its channel end, and starts one of its own
            print(f"fork server: fork: {error}", file=sys.stderr)
            os.close(agent)
            return
        if pid == 0:
            os.close(agent)
            self._leave()
            _become_one(channel, self._preloaded.threads)
        lent = self._lent[pid] = _Lent(pid, os.pidfd_open(pid), agent)
        self._selector.register(lent.server, selectors.EVENT_READ, pid)
        self._selector.register(lent.agent, selectors.EVENT_READ, pid)

    def _leave(self) -> None:
        """In the child: closes what belongs to the shared server."""
        self._selector.close()
        self._listener.close()
        for lent in self._lent.values():
            os.close(lent.server)
            os.close(lent.agent)

    def _end(self, lent: _Lent, ended: int) -> None:
        """The agent ended, or the fork did."""
        if ended == lent.agent:
            signal.pidfd_send_signal(lent.server, signal.SIGKILL)  # not reaped yet, so it is still there to be killed
        os.waitpid(lent.pid, 0)
        del self._lent[lent.pid]
        for descriptor in (lent.server, lent.agent):
            self._selector.unregister(descriptor)
            os.close(descriptor)


def _become_one(channel: socket.socket, threads: int) -> NoReturn:
    """Makes this fresh fork, of a process with so many threads, the fork server of the agent behind ``channel``."""
    code = 1
    try:
        os.setsid()
        channel.settimeout(_HELLO_WITHIN_S)
        hello, output = messages.receive(channel) or (None, ())
        if isinstance(hello, Hello):
            _settle(hello, output)
            channel.settimeout(None)
            more = preload(hello.preload)
            serve(channel, Preloaded(more.seconds, max(threads, more.threads)))
        code = 0
    except BaseException:  # whatever it is, the fork must end here and not return into the loop
        traceback.print_exc()
    finally:
        os._exit(code)


def _settle(hello: Hello, output: tuple[int, ...]) -> None:
    """Folder, environment and output are the agent's."""
    os.chdir(hello.folder)
    os.environ.clear()
    os.environ.update(hello.env)
    for fd, number in zip(output, (1, 2), strict=True):
        os.dup2(fd, number)
        os.close(fd)
