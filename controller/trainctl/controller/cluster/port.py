"""What the controller asks of the thing that runs agents: local processes, later Kubernetes pods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentRequest:
    """An agent that shall run.

    Attributes:
        node: on which node.
        slots: room for how many workers.
        first_local_rank: number of its first worker on the machine, which several nodes share on a laptop.
    """

    node: str
    slots: int
    first_local_rank: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentProcess:
    """One agent process as the cluster sees it.

    Attributes:
        node: where it runs, or ran.
        pid: of the process.
        alive: whether exactly this process still runs; False is evidence that its workers are gone, too.
        exit_code: as a shell would show it (-9: SIGKILL); None while it lives or where it cannot be known.
    """

    node: str
    pid: int
    alive: bool
    exit_code: int | None = None


class Cluster(Protocol):
    """The port. Calls are idempotent: creating a running agent and deleting an absent one do nothing."""

    async def create(self, request: AgentRequest) -> AgentProcess:
        """Starts the node's agent unless one runs there; returns the one that runs.

        Raises:
            UnavailableError: it could not be started; trying again may help.
        """
        ...

    async def observe(self) -> tuple[AgentProcess, ...]:
        """The newest agent process of every node, dead ones included, by node name."""
        ...

    async def delete(self, node: str) -> None:
        """Ends the node's agent, in good order if it obeys; returns when it is gone."""
        ...

    async def inventory(self) -> tuple[AgentRequest, ...]:
        """The nodes that may have an agent, with their room, by node name."""
        ...

    def on_change(self, callback: Callable[[], None]) -> None:
        """Calls back, from the event loop, whenever ``observe`` would say something new."""
        ...

    async def close(self) -> None:
        """Stops observing; the agents run on."""
        ...
