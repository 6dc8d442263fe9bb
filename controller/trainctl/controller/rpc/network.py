"""What a controller listens on: a port, so that the same controller also runs where there is no network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from trainctl.controller.rpc.admission import CallMetrics
from trainctl.controller.rpc.authentication import BearerToken
from trainctl.controller.rpc.interceptor import Gate
from trainctl.controller.rpc.join_service import JoinService
from trainctl.controller.rpc.server import AGENTS, PEOPLE, RpcServer
from trainctl.controller.rpc.services import Services
from trainctl.controller.rpc.standby import FailedTry, StandbyServer

if TYPE_CHECKING:  # a controller without TLS never loads what makes certificates
    from trainctl.controller.security.tls import Tls
    from trainctl.controller.tls_settings import TlsSettings


class Server(Protocol):
    """Answers from ``start`` to ``stop``."""

    def bind(self, host: str, port: int) -> str:
        """Takes the port (0: any free one) and returns the address.

        Raises:
            ConflictError: the port is taken or the host is not ours.
        """
        ...

    async def start(self) -> None:
        """Answers from now on."""
        ...

    async def stop(self) -> None:
        """Ends what is open and gives the port free."""
        ...


class WaitingServer(Server, Protocol):
    """Refuses every call, and says who leads, or why this controller does not.

    Attributes:
        leader: who leads and where; empty while nobody does.
        failed: the newest try to lead, or to ask the store who does, if that failed.
    """

    leader: str
    failed: FailedTry | None


class Network(Protocol):
    """Makes servers; each is used once."""

    def serving(self, services: Services) -> Server:
        """The server of a controller that leads."""
        ...

    def waiting(self) -> WaitingServer:
        """The server of a controller that stands by."""
        ...


class GrpcNetwork:
    """Implements ``Network``.

    Args:
        token: reads the controller's own.
        metrics: counts finished calls.
        tls: how ports are encrypted; None: they are not.
    """

    def __init__(self, token: Callable[[], str], metrics: CallMetrics, tls: Tls | None = None) -> None:
        self._token = token
        self._metrics = metrics
        self._tls = tls

    def serving(self, services: Services) -> Server:
        """See ``Network.serving``."""
        people = BearerToken(self._token(), services.tokens)
        gate = Gate(services.admission, people, self._metrics)
        if self._tls is None or services.nodes is None:
            return RpcServer(services, gate)
        from trainctl.controller.rpc.client_certificate import ClientCertificate

        agents = Gate(services.admission, ClientCertificate(services.nodes), self._metrics)
        return TwoPorts(
            RpcServer(services, gate, PEOPLE, self._tls.for_people()),
            RpcServer(services, agents, AGENTS, self._tls.for_agents()),
            services.join,
            self._tls.settings,
        )

    def waiting(self) -> StandbyServer:
        """See ``Network.waiting``."""
        return StandbyServer(self._tls.for_people() if self._tls is not None else None)


class TwoPorts:
    """Implements ``Server`` with TLS: one port for people, and one that asks every client for a certificate.

    gRPC in Python can ask all clients of a port for a certificate or none; nothing in between.

    Args:
        people: answers on the first.
        agents: answers on the second.
        join: tells agents where that is.
        settings: where it shall be.
    """

    def __init__(self, people: RpcServer, agents: RpcServer, join: JoinService, settings: TlsSettings) -> None:
        self._people = people
        self._agents = agents
        self._join = join
        self._settings = settings

    def bind(self, host: str, port: int) -> str:
        """Takes both ports and returns the address of the first."""
        address = self._people.bind(host, port)
        own_host = self._settings.agents_host
        bound = self._agents.bind(own_host or host, self._settings.agents_port)
        shown = own_host if own_host not in ("0.0.0.0", "::", "[::]") else ""
        self._join.agents_address = f"{shown}:{bound.rpartition(':')[2]}"
        return address

    async def start(self) -> None:
        """See ``Server.start``."""
        await self._agents.start()
        await self._people.start()

    async def stop(self) -> None:
        """See ``Server.stop``."""
        await asyncio.gather(self._people.stop(), self._agents.stop())
