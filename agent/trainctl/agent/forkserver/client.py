"""The agent's side of the fork server: keeps one running and turns its messages into futures."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from trainctl.agent.forkserver import messages
from trainctl.agent.forkserver.messages import Exited, Refused, Spawn, Spawned, Up
from trainctl.agent.forkserver.process import OwnProcess, ServerProcess, SharedProcess
from trainctl.core.errors import UnavailableError
from trainctl.core.pauses import doubled_s
from trainctl.core.system.unix_socket import connect

_LOG = logging.getLogger(__name__)
_RESTART_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 2.0
_LONG_LIFE_S = 20.0
_CLOSE_TIMEOUT_S = 5.0
_KILL_TIMEOUT_S = 30.0
_SPAWN_TIMEOUT_S = 30.0
_SHARED_UP_WITHIN_S = 60.0
_CONNECT_TIMEOUT_S = 5.0


class Child:
    """A process that the fork server made.

    Attributes:
        pid: its process id.
        exited: its exit code once it is confirmed to have ended (-9 when its server died with it).
    """

    def __init__(self, pid: int, pidfd: int) -> None:
        self.pid = pid
        self.exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._pidfd = pidfd

    def signal(self, number: signal.Signals) -> None:
        """Signals exactly this process, never another one that took its number; nothing happens if it ended."""
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def finish(self, code: int) -> None:
        """Its parent reaped it."""
        if not self.exited.done():
            os.close(self._pidfd)
            self._pidfd = -1
            self.exited.set_result(code)

    def watch_orphan(self) -> None:
        """Its parent died, so the kernel ends it: waits for that without a parent's help."""
        asyncio.get_running_loop().add_reader(self._pidfd, self._orphan_ended)

    def _orphan_ended(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        code = -int(signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):  # ours to reap only where this agent is the container's init
            result = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
            if result is not None and result.si_code == os.CLD_EXITED:
                code = result.si_status
        self.finish(code)


class ForkServerClient:
    """Keeps one fork server running.

    Args:
        preload: modules it imports before it forks anything.
        shared: socket of a server that forks one for each agent of this machine; this agent starts one of its own
            without it, and where that one does not serve.
        on_change: called when the server came up or went down.
        on_restart: called when it had to be started again.
    """

    def __init__(
        self,
        *,
        preload: tuple[str, ...],
        shared: Path | None = None,
        on_change: Callable[[], None],
        on_restart: Callable[[], None],
    ) -> None:
        self._preload = preload
        self._shared = shared
        self._on_change = on_change
        self._on_restart = on_restart
        self._channel: socket.socket | None = None
        self._process: ServerProcess | None = None
        self._late: asyncio.TimerHandle | None = None
        self._ready = asyncio.Event()
        self._down = asyncio.Event()
        self._waiting: dict[int, asyncio.Future[Child]] = {}
        self._children: dict[int, Child] = {}
        self._requests = 0

    async def run(self) -> None:
        """Starts the server, and again whenever it ends; runs until cancelled, then call ``close``."""
        failures = 0
        while True:
            started_s = time.monotonic()
            self._start()
            await self._down.wait()
            lived_long = time.monotonic() - started_s > _LONG_LIFE_S
            failures = 0 if lived_long else failures + 1
            await self._clear_up()
            _LOG.error("the fork server ended, and its workers with it; starting another one")
            self._on_restart()
            await asyncio.sleep(doubled_s(_RESTART_PAUSE_S, failures, _LONGEST_PAUSE_S))

    async def spawn(
        self,
        entry: str,
        *,
        fds: Mapping[str, int],
        arguments: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Child:
        """Forks a child that calls ``entry``; the descriptors stay the caller's (see ``messages.Spawn`` for names).

        Raises:
            UnavailableError: there is no server now, or it could not fork, or it is stuck and was ended; should there
                have been a child, it dies.
        """
        if self._channel is None or not self._ready.is_set():
            raise UnavailableError("no fork server is running yet; it is being started")
        self._requests += 1
        request = self._requests
        spawn = Spawn(request=request, entry=entry, arguments=arguments or {}, fd_names=tuple(fds), env=env or {})
        try:
            messages.send(self._channel, spawn, tuple(fds.values()))
        except OSError as error:
            raise UnavailableError(f"the fork server takes no request: {error}") from error
        answer: asyncio.Future[Child] = asyncio.get_running_loop().create_future()
        self._waiting[request] = answer
        try:
            return await asyncio.wait_for(answer, _SPAWN_TIMEOUT_S)
        except TimeoutError:
            if self._process is not None:
                self._process.kill()  # stuck: it would not reap its children either
            raise UnavailableError(f"the fork server did not answer within {_SPAWN_TIMEOUT_S:g} s") from None

    async def close(self) -> None:
        """Ends the server and with it every child."""
        await self._clear_up(timeout_s=_CLOSE_TIMEOUT_S)

    @property
    def up(self) -> bool:
        """Whether it can fork now."""
        return self._ready.is_set()

    async def wait_up(self) -> None:
        """Waits until it can fork."""
        await self._ready.wait()

    @property
    def pid(self) -> int:
        """The server's process id; 0 if there is none."""
        return self._process.pid if self._process is not None else 0

    def _start(self) -> None:
        self._channel, self._process = self._attach() or self._launch()
        self._channel.setblocking(False)
        self._down.clear()
        asyncio.get_running_loop().add_reader(self._channel, self._receive)

    def _launch(self) -> tuple[socket.socket, ServerProcess]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            return ours, OwnProcess(self._preload, theirs)

    def _attach(self) -> tuple[socket.socket, ServerProcess] | None:
        if self._shared is None:
            return None
        try:
            channel = connect(self._shared, _CONNECT_TIMEOUT_S)
            try:
                process = SharedProcess(self._preload, channel)
            except BaseException:
                channel.close()
                raise
        except OSError as error:
            _LOG.warning("no fork server at %s: %s; starting one here", self._shared, error)
            return None
        self._late = asyncio.get_running_loop().call_later(_SHARED_UP_WITHIN_S, self._give_up_shared)
        return channel, process

    def _give_up_shared(self) -> None:
        if self._channel is not None and not self._ready.is_set():
            _LOG.warning("the shared fork server at %s forked none in %g s", self._shared, _SHARED_UP_WITHIN_S)
            self._lose()

    def _receive(self) -> None:
        while self._channel is not None:
            try:
                packet = messages.receive(self._channel)
            except BlockingIOError:
                return
            if packet is None:
                self._lose()
                return
            self._handle(*packet)

    def _handle(self, message: messages.ServerMessage, fds: tuple[int, ...]) -> None:
        if isinstance(message, Up):
            assert self._process is not None
            self._process.came_up(message.pid, fds[0])
            if message.threads != 1:
                _LOG.warning("the fork server has %d threads; forking is only safe with 1", message.threads)
            _LOG.info("fork server %d is up, preloading took %.2f s", message.pid, message.preload_s)
            self._ready.set()
            self._on_change()
        elif isinstance(message, Spawned):
            child = self._children[message.pid] = Child(message.pid, fds[0])
            answer = self._waiting.pop(message.request)
            if answer.cancelled():  # nobody waits for it any more
                child.signal(signal.SIGKILL)
            else:
                answer.set_result(child)
        elif isinstance(message, Refused):
            answer = self._waiting.pop(message.request)
            if not answer.cancelled():
                answer.set_exception(UnavailableError(f"no worker could be forked: {message.message}"))
        elif isinstance(message, Exited):
            self._children.pop(message.pid).finish(message.code)

    def _lose(self) -> None:
        """The channel ended: the server is dead or about to be."""
        assert self._channel is not None
        asyncio.get_running_loop().remove_reader(self._channel)
        self._channel.close()
        self._channel = None
        if self._late is not None:
            self._late.cancel()
        if not self._ready.is_set():
            self._shared = None  # no fork was made, or it did not come up
        self._ready.clear()
        waiting, self._waiting = self._waiting, {}
        children, self._children = self._children, {}
        for answer in waiting.values():
            if not answer.cancelled():
                answer.set_exception(UnavailableError("the fork server ended before it answered"))
        for child in children.values():
            child.watch_orphan()
        self._down.set()
        self._on_change()

    async def _clear_up(self, timeout_s: float = 0.0) -> None:
        """Sees the server to its end; after ``timeout_s`` with SIGKILL."""
        if self._channel is not None:
            self._lose()
        if self._process is None:
            return
        loop = asyncio.get_running_loop()
        process, self._process = self._process, None
        if not await loop.run_in_executor(None, process.wait, timeout_s):
            process.kill()
            await loop.run_in_executor(None, process.wait, _KILL_TIMEOUT_S)
