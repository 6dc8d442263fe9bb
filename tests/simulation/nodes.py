"""Machines with an agent each, which is started again when it ends."""

from __future__ import annotations

from collections.abc import Callable

from simulation.agents import AgentLife
from simulation.network import Network
from simulation.virtual_loop import Process


class Node:
    """One machine.

    Args:
        name: of the machine.
        network: that it hangs on.
        peers: names of the controllers' machines.
        begin: starts an agent process, given the number of lives before.
    """

    def __init__(
        self, name: str, network: Network, peers: tuple[str, ...], begin: Callable[[str, int], AgentLife]
    ) -> None:
        self.name = name
        self.life: AgentLife | None = None
        self.graves: list[Process] = []
        self.wanted = True
        self._network = network
        self._peers = peers
        self._begin = begin
        self._lives = 0

    def start(self) -> None:
        """The agent runs, and the network cable is in."""
        if self.life is None and self.wanted:
            self.open()
            self._lives += 1
            self.life = self._begin(self.name, self._lives)

    def crash(self) -> None:
        """The agent dies, and its workers; the machine closes its connections."""
        if self.life is not None:
            self._die()
            self._network.reset(client=self.name)

    def power_off(self) -> None:
        """The machine is gone; nobody is told."""
        if self.life is not None:
            for peer in self._peers:
                self._network.stall(self.name, peer)
                self._network.stall(peer, self.name)
            self._die()

    def freeze(self) -> None:
        """Agent and workers stop in the middle of whatever they do."""
        if self.life is not None:
            self.life.process.freeze()

    def thaw(self) -> None:
        """They go on."""
        if self.life is not None:
            self.life.process.thaw()

    def open(self) -> None:
        """Everything gets through again."""
        for peer in self._peers:
            self._network.flow(self.name, peer)
            self._network.flow(peer, self.name)

    async def bury(self) -> None:
        """Lets nothing of any life be left."""
        self.wanted = False
        self.crash()
        for process in self.graves:
            await process.bury()

    def _die(self) -> None:
        assert self.life is not None
        self.life.kill()
        self.graves.append(self.life.process)
        self.life = None
