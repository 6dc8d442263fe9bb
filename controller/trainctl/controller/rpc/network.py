"""What a controller listens on: a port, so that the same controller also runs where there is no network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from trainctl.controller.rpc.agent_service import AgentService
from trainctl.controller.rpc.interceptor import CallMetrics, Gate
from trainctl.controller.rpc.job_service import JobService
from trainctl.controller.rpc.server import RpcServer
from trainctl.controller.rpc.standby import StandbyServer


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
    """Refuses every call, and says who leads.

    Attributes:
        leader: who leads and where; empty while nobody does.
    """

    leader: str


class Network(Protocol):
    """Makes servers; each is used once."""

    def serving(self, jobs: JobService, agents: AgentService) -> Server:
        """The server of a controller that leads."""
        ...

    def waiting(self) -> WaitingServer:
        """The server of a controller that stands by."""
        ...


class GrpcNetwork:
    """Implements ``Network``.

    Args:
        token: reads what every call must carry.
        metrics: counts finished calls.
    """

    def __init__(self, token: Callable[[], str], metrics: CallMetrics) -> None:
        self._token = token
        self._metrics = metrics

    def serving(self, jobs: JobService, agents: AgentService) -> RpcServer:
        """See ``Network.serving``."""
        return RpcServer(jobs, agents, Gate(self._token(), self._metrics))

    def waiting(self) -> StandbyServer:
        """See ``Network.waiting``."""
        return StandbyServer()
