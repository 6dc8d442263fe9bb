"""Simulated agents: they talk to the real ``AgentService`` as real ones do, and play their workers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random

from simulation.data_plane import DataPlane, seen
from simulation.network import Connection, Network
from simulation.virtual_loop import Process
from trainctl.agent.conversation import COALESCE_S, Conversation
from trainctl.agent.conversation import Node as Talk
from trainctl.agent.outbox import FiguresOutbox, ReportsOutbox
from trainctl.core.errors import TrainctlError
from trainctl.core.records.step import StepFigures
from trainctl.core.records.worker import CheckpointReport, WorkerDesired, WorkerObserved
from trainctl.protos.v1 import agent_pb2
from trainctl.protos.version import WIRE_VERSION
from unit.domain.domain_sim_nodes import SimAgent

REGISTER_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Order:
    """One worker in a desired state that an agent obeyed."""

    job_uid: str
    slot: int
    incarnation: int
    instruction: str
    generation: int


@dataclass(frozen=True, slots=True)
class Obeyed:
    """A desired state that an agent took."""

    at_s: float
    life: str
    incarnation: int
    epoch: int
    version: int
    orders: tuple[Order, ...]


class AgentLife:
    """One agent process, from its start to its death.

    Args:
        node: its machine.
        number: which life on it.
        slots: workers that it takes.
        targets: address of each controller.
        network: way to them.
        plane: where its workers live.
        chance: of pauses.
        obeyed: takes what it obeyed.
    """

    def __init__(
        self,
        *,
        node: str,
        number: int,
        slots: int,
        targets: Sequence[str],
        network: Network,
        plane: DataPlane,
        chance: Random,
        obeyed: list[Obeyed],
    ) -> None:
        self.process = Process(f"{node}#{number}")
        self._node = node
        self._network = network
        self._plane = plane
        self._obeyed = obeyed
        self._now_s = asyncio.get_running_loop().time
        self._figures = FiguresOutbox()
        self._reports = ReportsOutbox(self._now_s)
        self._parts: dict[str, SimAgent] = {}
        self._orders: tuple[Order, ...] = ()
        self._connection: Connection | None = None
        self._conversation = Conversation(
            targets=targets,
            registration=agent_pb2.RegisterRequest(
                node=node, address=node, pid=number, slots=slots, version="simulated",
                wire_version=WIRE_VERSION, device="cpu",
            ),
            node=Talk(
                observe=self._seen,
                store_address=lambda: f"{node}:{number}",
                set_desired=self._obey,
                forget_jobs=lambda _: None,
            ),
            figures=self._figures,
            reports=self._reports,
            now_s=self._now_s,
            chance=chance,
        )  # fmt: skip
        self.process.spawn(self._run())

    def kill(self) -> None:
        """The process and its workers are gone."""
        self.process.kill()
        self._forget_all()

    def moving(self) -> bool:
        """See ``Owner``."""
        return not self.process.frozen

    def changed(self) -> None:
        """See ``Owner``: an observation goes out in a moment."""
        if self._conversation.changed():
            self.process.call(self._coalesce)

    def took(self, uid: str, figures: Sequence[StepFigures], reports: Sequence[CheckpointReport]) -> None:
        """See ``Owner``."""
        if figures:
            self._figures.add(uid, figures)
        for report in reports:
            self._reports.add(report)
        if reports:
            self.process.call(self._flush)

    def flood(self, count: int) -> None:
        """Says the same thing very often."""
        for _ in range(0 if self.process.frozen else count):
            self._conversation.observe()
            self._flush()

    async def _run(self) -> None:
        while True:
            try:
                await self._talk(self._conversation.target)
            except TrainctlError as error:
                if self._conversation.judge(error):
                    self._forget_all()
            await asyncio.sleep(self._conversation.next_pause_s())

    async def _talk(self, address: str) -> None:
        if not self._conversation.incarnation:
            registration = self._conversation.registration
            self._conversation.registered(
                await self._network.call(self._node, address, "Register", registration, timeout_s=REGISTER_TIMEOUT_S)
            )
        connection = self._network.connect(self._node, address, "Session")
        connection.send(self._conversation.begin())
        self._connection = connection
        self._flush()
        self._beat_later(connection)
        try:
            while (response := await connection.receive()) is not None:
                self._hear(response)
        finally:
            self._conversation.end()
            self._connection = None
            connection.hang_up()

    def _beat(self, connection: Connection) -> None:
        if self._connection is not connection:
            return
        if self._conversation.gives_up():
            connection.reset()
            return
        if self._conversation.beat():
            self._flush()
        self._beat_later(connection)

    def _beat_later(self, connection: Connection) -> None:
        asyncio.get_running_loop().call_at(self._conversation.beat_at_s(), self._beat, connection)

    def _coalesce(self) -> None:
        asyncio.get_running_loop().call_later(COALESCE_S, self._observe)

    def _observe(self) -> None:
        self._conversation.observe()
        self._flush()

    def _flush(self) -> None:
        while self._connection is not None and (message := self._conversation.next_message()) is not None:
            self._connection.send(message)

    def _seen(self) -> Iterable[WorkerObserved]:
        return seen(tuple(self._parts.values()), self._now_s())

    def _hear(self, response: agent_pb2.SessionResponse) -> None:
        if self._conversation.hear(response):
            desired = response.desired
            life, incarnation = self.process.name, self._conversation.incarnation
            self._obeyed.append(Obeyed(self._now_s(), life, incarnation, desired.epoch, desired.version, self._orders))
            self.changed()

    def _obey(self, workers: Sequence[WorkerDesired]) -> None:
        self._orders = tuple(
            Order(w.job_uid, w.slot, w.incarnation, w.instruction.value, w.generation) for w in workers
        )
        by_job: dict[str, list[WorkerDesired]] = {uid: [] for uid in self._parts}
        for worker in workers:
            by_job.setdefault(worker.job_uid, []).append(worker)
        for uid, wanted in by_job.items():
            if uid not in self._parts:
                incarnation = self._conversation.incarnation
                self._parts[uid] = self._plane.part(uid, wanted[0], self, self._node, incarnation)
            self._plane.order(self._parts[uid], uid, wanted)

    def _forget_all(self) -> None:
        """Its workers end, before it begins another life if its own was declared over."""
        for uid in list(self._parts):
            self._plane.gone(uid, self._parts.pop(uid), self._now_s())
