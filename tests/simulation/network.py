"""Connections in memory and virtual time: in order, delayed, cut, and silently lost in one direction."""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from simulation.virtual_loop import OUTSIDE, Process
from trainctl.controller.rpc.services import Services
from trainctl.controller.rpc.standby import FailedTry, refusal
from trainctl.core.errors import ConflictError, InternalError, TrainctlError, UnavailableError

KEEPALIVE_S = 30.0
"""A peer that lets nothing through for so long counts as gone."""
FAST_S = 0.001
SERVICES = ("Register", "Session")


class ResetError(UnavailableError):
    """The connection broke, or there was none."""

    code = "UNAVAILABLE"


@dataclass(slots=True, eq=False)
class Way:
    """One direction between two parties.

    Attributes:
        delay_s: until something arrives.
        stalled: nothing arrives; it does later, if the connection still stands then.
    """

    delay_s: float = FAST_S
    stalled: bool = False
    stalls: int = 0
    pipes: dict[_Pipe, None] = field(default_factory=dict)


class _Pipe:
    """What one side of a connection sends: in order."""

    def __init__(self, way: Way, connection: Connection, deliver: Callable[[Any], None]) -> None:
        self.connection = connection
        self._way = way
        self._deliver = deliver
        self._arrived: deque[Any] = deque()
        self._last_s = 0.0
        way.pipes[self] = None

    def send(self, item: Any) -> None:
        loop = asyncio.get_running_loop()
        # Timers of the same time come in any order.
        self._last_s = max(self._last_s + 1e-6, loop.time() + self._way.delay_s)
        loop.call_at(self._last_s, self._arrive, item, context=OUTSIDE)

    def close(self) -> None:
        self._way.pipes.pop(self, None)

    def flush(self) -> None:
        while self._arrived and not self._way.stalled:
            self._deliver(self._arrived.popleft())

    def _arrive(self, item: Any) -> None:
        self._arrived.append(item)
        self.flush()


@dataclass(frozen=True, slots=True)
class _End:
    error: TrainctlError | None


class Connection:
    """One call over the network: a stream of messages each way, then an end.

    Args:
        client: whose it is.
        up: the way to the server.
        down: the way back.
        over: told when it is closed.
    """

    def __init__(self, client: str, up: Way, down: Way, over: Callable[[Connection], None]) -> None:
        self.open = True
        self.client = client
        self.up = up
        self._closed = over
        self.server: Process | None = None
        self.task: asyncio.Task[None] | None = None
        self.bug = ""
        self._to_server: asyncio.Queue[Any] = asyncio.Queue()
        self._to_client: asyncio.Queue[Any] = asyncio.Queue()
        self._up = _Pipe(up, self, self._to_server.put_nowait)
        self._down = _Pipe(down, self, self._take)

    def send(self, message: Any) -> None:
        """From the client."""
        if self.open:
            self._up.send(message)

    async def receive(self) -> Any:
        """The next message for the client; None at the end.

        Raises:
            TrainctlError: the call ended with it.
        """
        item = await self._to_client.get()
        if not isinstance(item, _End):
            return item
        if item.error is not None:
            raise item.error
        return None

    def hang_up(self) -> None:
        """The client wants no more."""
        self._over()

    def reset(self) -> None:
        """It breaks, and both sides see it."""
        if self.open:
            self._to_client.put_nowait(_End(ResetError("the connection broke")))
            self._over()

    async def serve(self, answer: Callable[[AsyncIterator[Any]], AsyncIterator[Any]]) -> None:
        """The server's side, in the server's process."""
        error: TrainctlError | None = None
        try:
            async with contextlib.aclosing(answer(self._requests())) as answers:  # type: ignore[type-var]
                async for message in answers:
                    self._down.send(message)
        except TrainctlError as failure:
            error = failure
        except Exception as failure:
            error = InternalError(f"{type(failure).__name__}: {failure}")
            self.bug = "".join(traceback.format_exception(failure))
        self._down.send(_End(error))

    async def _requests(self) -> AsyncIterator[Any]:
        while True:
            yield await self._to_server.get()

    def _take(self, item: Any) -> None:
        self._to_client.put_nowait(item)
        if isinstance(item, _End):
            self._over()

    def _over(self) -> None:
        if not self.open:
            return
        self.open = False
        self._up.close()
        self._down.close()
        self._closed(self)
        if self.task is not None and not self.task.done() and self.server is not None:
            self.server.call(self.task.cancel)


class Network:
    """All parties, and the ways between them.

    Args:
        chance: of small differences in delay.
    """

    def __init__(self, chance: Random) -> None:
        self._chance = chance
        self._ways: dict[tuple[str, str], Way] = {}
        self._servers: dict[str, SimServer] = {}
        self._connections: dict[Connection, None] = {}
        self.slow_s = 0.0
        self.bugs: list[str] = []

    def way(self, source: str, target: str) -> Way:
        """From one party to another."""
        return self._ways.setdefault((source, target), Way(delay_s=FAST_S * self._chance.uniform(1, 3)))

    def stall(self, source: str, target: str) -> None:
        """From now on nothing gets from one to the other."""
        way = self.way(source, target)
        way.stalled, way.stalls = True, way.stalls + 1
        asyncio.get_running_loop().call_later(KEEPALIVE_S, self._give_up, way, way.stalls, context=OUTSIDE)

    def flow(self, source: str, target: str) -> None:
        """What still stands goes on."""
        way = self.way(source, target)
        way.stalled = False
        for pipe in list(way.pipes):
            pipe.flush()

    def slow(self, delay_s: float) -> None:
        """Everything takes so much longer; 0: no longer."""
        for way in self._ways.values():
            way.delay_s += delay_s - self.slow_s
        self.slow_s = delay_s

    def reset(self, *, process: Process | None = None, client: str = "") -> None:
        """Breaks all connections, or those of one process or client."""
        for connection in list(self._connections):
            mine = process is not None and connection.server is process
            if mine or (client and connection.client == client) or (process is None and not client):
                connection.reset()

    def heal(self) -> None:
        self.slow(0.0)
        for source, target in list(self._ways):
            self.flow(source, target)

    def server(self, address: str) -> SimServer:
        """Who listens there.

        Raises:
            ConflictError: nobody does.
        """
        if address not in self._servers:
            raise ConflictError(f"nobody listens at {address}")
        return self._servers[address]

    def put(self, address: str, server: SimServer) -> None:
        if address in self._servers:
            raise ConflictError(f"{address} is taken")
        self._servers[address] = server

    def remove(self, server: SimServer) -> None:
        for address in [a for a, one in self._servers.items() if one is server]:
            del self._servers[address]

    def bury(self, process: Process) -> None:
        """The process died: its ports are free, its peers see their connections break."""
        for server in [one for one in self._servers.values() if one.process is process]:
            self.remove(server)
        self.reset(process=process)

    def connect(self, client: str, address: str, method: str, *, timeout_s: float | None = None) -> Connection:
        """Begins a call; that nobody listens is seen when the answer is waited for."""
        host = address.partition(":")[0]
        connection = Connection(client, self.way(client, host), self.way(host, client), self._over)
        self._connections[connection] = None
        self._later(connection.up.delay_s, connection, address, method, timeout_s)
        return connection

    async def call(self, client: str, address: str, method: str, request: Any, *, timeout_s: float) -> Any:
        """A unary call.

        Raises:
            TrainctlError: what the server raised, or there was no answer.
        """
        connection = self.connect(client, address, method, timeout_s=timeout_s)
        connection.send(request)
        try:
            async with asyncio.timeout(timeout_s):
                return await connection.receive()
        except TimeoutError:
            raise ResetError(f"no answer within {timeout_s:g} s") from None
        finally:
            connection.hang_up()

    def _accept(self, connection: Connection, address: str, method: str, timeout_s: float | None) -> None:
        server = self._servers.get(address)
        if not connection.open:
            return
        if connection.up.stalled:
            self._later(1.0, connection, address, method, timeout_s)
            return
        if server is None or server.process.dead:
            connection.reset()
            return
        connection.server = server.process
        connection.task = server.process.spawn(connection.serve(server.answer(method, timeout_s)))

    def _later(self, delay_s: float, *call: Any) -> None:
        asyncio.get_running_loop().call_later(delay_s, self._accept, *call, context=OUTSIDE)

    def _over(self, connection: Connection) -> None:
        del self._connections[connection]
        if connection.bug:
            self.bugs.append(connection.bug)

    def _give_up(self, way: Way, stall: int) -> None:
        if way.stalled and way.stalls == stall:
            for pipe in list(way.pipes):
                pipe.connection.reset()


class SimServer:
    """Implements ``Server`` and ``WaitingServer``: of one that leads, or without services of one that waits."""

    def __init__(self, network: Network, process: Process, services: Services | None = None) -> None:
        self.process = process
        self.leader = ""
        self.failed: FailedTry | None = None
        self._network = network
        self.services = services
        self._address = ""

    def bind(self, host: str, port: int) -> str:
        self._address = f"{host}:{port}"
        return self._address

    async def start(self) -> None:
        self._network.put(self._address, self)

    async def stop(self) -> None:
        self._network.remove(self)
        self._network.reset(process=self.process)

    def answer(self, method: str, timeout_s: float | None) -> Callable[[AsyncIterator[Any]], AsyncIterator[Any]]:
        """What a call of ``method`` runs."""
        services = self.services
        if services is None:
            return self._refuse
        if method == "Session":
            return lambda requests: services.agents.Session(requests, None)
        handler = getattr(services.agents if method in SERVICES else services.jobs, method)

        async def once(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
            request = await anext(requests)
            try:
                async with asyncio.timeout(timeout_s):
                    yield await handler(request, None)
            except TimeoutError:
                raise ResetError("the deadline has passed") from None

        return once

    async def _refuse(self, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        raise refusal(self.leader, self.failed)
        yield


class SimNetwork:
    """Implements the controller's ``Network`` port for one process."""

    def __init__(self, network: Network, process: Process) -> None:
        self._network = network
        self._process = process

    def serving(self, services: Services) -> SimServer:
        return SimServer(self._network, self._process, services)

    def waiting(self) -> SimServer:
        return SimServer(self._network, self._process)
