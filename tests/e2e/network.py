"""TCP connections that can be hurt: a proxy between two parts of the system, in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from enum import StrEnum

_CHUNK_BYTES = 1 << 16


class Condition(StrEnum):
    """What a wire does with what is sent over it."""

    OPEN = "open"
    CUT = "cut"
    """Connections end, and new ones are refused at once."""
    SILENT = "silent"
    """Nothing arrives in either direction, and nobody is told: as when a cable is pulled."""
    DEAF = "deaf"
    """What the server sends does not arrive; what the client sends does."""


class Wire:
    """One address in front of a server; made by ``Network.wire``.

    Attributes:
        address: ``host:port`` that clients connect to.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, upstream: Callable[[], str]) -> None:
        self.address = ""
        self._loop = loop
        self._upstream = upstream
        self._condition = Condition.OPEN
        self._delay_s = 0.0
        self._changed = asyncio.Event()
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    def hurt(self, condition: Condition, *, delay_s: float = 0.0) -> None:
        """Changes what the wire does, for connections that stand and for new ones; callable from any thread."""
        self._loop.call_soon_threadsafe(self._hurt, condition, delay_s)

    def heal(self) -> None:
        """All is well again; what was held back arrives."""
        self.hurt(Condition.OPEN)

    def _hurt(self, condition: Condition, delay_s: float) -> None:
        self._condition, self._delay_s = condition, delay_s
        self._changed.set()
        self._changed = asyncio.Event()
        if condition is Condition.CUT:
            for writer in tuple(self._open):
                writer.transport.abort()

    async def serve(self) -> None:
        """Begins to listen."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        self.address = f"{host}:{port}"

    def close(self) -> None:
        """Ends listening, in the loop's thread."""
        if self._server is not None:
            self._server.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = self._upstream().rpartition(":")
        try:
            if self._condition is Condition.CUT or not port:
                raise ConnectionRefusedError
            there, back = await asyncio.open_connection(host, int(port))
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, back}
        self._open |= ends
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, back, {Condition.SILENT}))
                group.create_task(self._pump(there, writer, {Condition.SILENT, Condition.DEAF}))
        finally:
            self._open -= ends
            for end in ends:
                end.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, to: asyncio.StreamWriter, held: set[Condition]) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(_CHUNK_BYTES):
                while self._condition in held:
                    await self._changed.wait()
                if self._delay_s:
                    await asyncio.sleep(self._delay_s)
                to.write(data)
                await to.drain()
        to.transport.abort()


class Network:
    """All wires of a test; a context manager."""

    def __enter__(self) -> Network:
        self._loop = asyncio.new_event_loop()
        self._wires: list[Wire] = []
        self._thread = threading.Thread(target=self._loop.run_forever, name="network", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def wire(self, upstream: Callable[[], str]) -> Wire:
        """A new wire to whatever address ``upstream`` says when somebody connects; empty while there is none."""
        wire = Wire(self._loop, upstream)
        asyncio.run_coroutine_threadsafe(wire.serve(), self._loop).result(10)
        self._wires.append(wire)
        return wire

    async def _end(self) -> None:
        for wire in self._wires:
            wire.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
