"""Keeps one collective store running beside the agent."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable

from trainctl.agent.backoff import Backoff
from trainctl.agent.forkserver.client import Child, ForkServerClient
from trainctl.core.errors import UnavailableError

_LOG = logging.getLogger(__name__)
_START_TIMEOUT_S = 30.0


class StoreKeeper:
    """Starts the store, and again, at a new address, whenever it ends.

    Args:
        server: forks it.
        entry: ``module:function`` of the store, see ``forkserver.collective_store``.
        host: address that other nodes reach this one at; the store listens on nothing else.
        on_change: called when the address changed.
        on_restart: called when it had to be started again.
    """

    def __init__(
        self,
        *,
        server: ForkServerClient,
        entry: str,
        host: str,
        on_change: Callable[[], None],
        on_restart: Callable[[], None],
    ) -> None:
        self._server = server
        self._entry = entry
        self._host = host
        self._on_change = on_change
        self._on_restart = on_restart
        self.address = ""
        self.pid = 0

    async def run(self) -> None:
        """Runs until cancelled; the store then ends with its fork server."""
        backoff = Backoff()
        while True:
            await self._server.wait_up()
            try:
                await self._serve_once(backoff)
            except (UnavailableError, OSError) as error:
                _LOG.error("the collective store did not start: %s", error)
            self._set("", 0)
            self._on_restart()
            await asyncio.sleep(backoff.next_s())

    async def _serve_once(self, backoff: Backoff) -> None:
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        try:
            child = await self._server.spawn(self._entry, fds={"report_fd": write_end}, arguments={"host": self._host})
        except BaseException:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
        port = await self._read_port(child, read_end)
        _LOG.info("collective store %d listens on %s:%d", child.pid, self._host, port)
        backoff.reset()
        self._set(f"{self._host}:{port}", child.pid)
        code = await child.exited
        _LOG.error("collective store %d ended with exit code %d; starting another one", child.pid, code)

    async def _read_port(self, child: Child, read_end: int) -> int:
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read_end, "rb", buffering=0)
        )
        try:
            text = await asyncio.wait_for(reader.read(), _START_TIMEOUT_S)
        except TimeoutError:
            child.signal(signal.SIGKILL)
            raise UnavailableError(f"it named no port within {_START_TIMEOUT_S:g} s") from None
        finally:
            transport.close()
        if not text:
            raise UnavailableError(
                f"it ended with exit code {await child.exited} and named no port; the lines above this one say why"
            )
        return int(text)

    def _set(self, address: str, pid: int) -> None:
        self.pid = pid
        if address != self.address:
            self.address = address
            self._on_change()
