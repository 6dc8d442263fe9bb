"""Simulated agents: they talk to the real ``AgentService`` as ``trainctl.agent.link`` does, and play their workers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from simulation.data_plane import DataPlane, seen
from simulation.network import Connection, Network
from simulation.virtual_loop import Process
from trainctl.agent.backoff import Backoff
from trainctl.agent.outbox import FiguresOutbox, Report, ReportsOutbox
from trainctl.agent.patience import Patience
from trainctl.core.errors import TrainctlError
from trainctl.core.records.step import StepFigures
from trainctl.core.records.worker import CheckpointReport, WorkerDesired, WorkerObserved
from trainctl.protos.convert import message_to_record, record_to_message
from trainctl.protos.v1 import agent_pb2, records_pb2
from trainctl.protos.version import WIRE_VERSION
from unit.domain.domain_sim_nodes import SimAgent

COALESCE_S = 0.005
NEXT_TARGET_S = 0.02
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
        self.node = node
        self.incarnation = 0
        self.epoch = 0
        self.connected = False
        self._number = number
        self._slots = slots
        self._targets = targets
        self._turn = 0
        self._network = network
        self._plane = plane
        self._obeyed = obeyed
        self._backoff = Backoff(chance)
        self._patience = Patience()
        self._figures = FiguresOutbox()
        self._reports = ReportsOutbox(_now_s)
        self._parts: dict[str, SimAgent] = {}
        self._messages: dict[tuple[str, int], tuple[WorkerObserved, records_pb2.WorkerObserved]] = {}
        self._connection: Connection | None = None
        self._due = self._coalescing = False
        self._heartbeat_s = 1.0
        self._answered_s = 0.0
        self._sequence = 0
        self._desired_version = 0
        self.task = self.process.spawn(self._run())

    def kill(self) -> None:
        """The process and its workers are gone."""
        self.process.kill()
        for uid in list(self._parts):
            self._plane.gone(uid, self._parts.pop(uid), _now_s())

    def moving(self) -> bool:
        """See ``Owner``."""
        return not self.process.frozen

    def changed(self) -> None:
        """See ``Owner``: an observation goes out in a moment."""
        if not self._coalescing:
            self._coalescing = True
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
        for _ in range(count):
            if self._connection is not None and not self.process.frozen:
                self._connection.send(agent_pb2.SessionRequest(observed=self._observation()))

    async def _run(self) -> None:
        while True:
            try:
                await self._talk(self._targets[self._turn % len(self._targets)])
            except TrainctlError as error:
                if error.code == "STALE_INCARNATION":
                    self._forget_all()
                    self.incarnation = 0
            self._turn += 1
            everybody = self._turn % len(self._targets) == 0
            if everybody:
                self._patience.nobody_answered()
            await asyncio.sleep(self._backoff.next_s() if everybody else NEXT_TARGET_S)

    async def _talk(self, address: str) -> None:
        if not self.incarnation:
            await self._register(address)
        connection = self._network.connect(self.node, address, "Session")
        hello = agent_pb2.AgentHello(node=self.node, agent_incarnation=self.incarnation, epoch=self.epoch)
        connection.send(agent_pb2.SessionRequest(hello=hello))
        self._figures.rewind()
        self._reports.rewind()
        self._connection, self._due = connection, True
        self._answered_s = _now_s()
        self._flush()
        self._beat_later(connection)
        try:
            while (response := await connection.receive()) is not None:
                self.connected = True
                self._handle(response)
        finally:
            self.connected = False
            self._connection = None
            connection.hang_up()

    async def _register(self, address: str) -> None:
        request = agent_pb2.RegisterRequest(
            node=self.node, address=self.node, pid=self._number, slots=self._slots, version="simulated",
            wire_version=WIRE_VERSION, device="cpu",
        )  # fmt: skip
        reply = await self._network.call(self.node, address, "Register", request, timeout_s=REGISTER_TIMEOUT_S)
        self.incarnation = reply.agent_incarnation
        self.epoch = max(self.epoch, reply.epoch)
        self._heartbeat_s = reply.heartbeat_s or self._heartbeat_s

    def _beat(self, connection: Connection) -> None:
        if self._connection is not connection:
            return
        if len(self._targets) > 1 and _now_s() - self._answered_s >= self._limit_s():
            connection.reset()
            return
        self._due = True
        self._flush()
        self._beat_later(connection)

    def _beat_later(self, connection: Connection) -> None:
        asyncio.get_running_loop().call_later(min(self._heartbeat_s, self._limit_s()), self._beat, connection)

    def _limit_s(self) -> float:
        return self._patience.limit_s(connected=self.connected, heartbeat_s=self._heartbeat_s)

    def _coalesce(self) -> None:
        asyncio.get_running_loop().call_later(COALESCE_S, self._observation_due)

    def _observation_due(self) -> None:
        self._coalescing = False
        self._due = True
        self._flush()

    def _flush(self) -> None:
        while self._connection is not None and (message := self._next()) is not None:
            self._connection.send(message)

    def _next(self) -> agent_pb2.SessionRequest | None:
        if self._due:
            self._due = False
            return agent_pb2.SessionRequest(observed=self._observation())
        report: Report | None = self._reports.take(self._sequence + 1)
        if isinstance(report, CheckpointReport):
            return agent_pb2.SessionRequest(checkpoint=record_to_message(report, records_pb2.CheckpointReport))
        batch = self._figures.take()
        if batch is None:
            return None
        figures = [record_to_message(one, records_pb2.StepFigures) for one in batch.figures]
        return agent_pb2.SessionRequest(
            figures=agent_pb2.FiguresBatch(job_uid=batch.job_uid, sequence=batch.sequence, figures=figures)
        )

    def _observation(self) -> agent_pb2.AgentObserved:
        self._sequence += 1
        workers = seen(tuple(self._parts.values()), _now_s())
        return agent_pb2.AgentObserved(
            sequence=self._sequence,
            desired_version=self._desired_version,
            store_address=f"{self.node}:{self._number}",
            workers=[self._message(worker) for worker in workers],
        )

    def _message(self, worker: WorkerObserved) -> records_pb2.WorkerObserved:
        """Made anew only where there is news: reports come four times a second."""
        place = (worker.job_uid, worker.slot)
        known = self._messages.get(place)
        if known is None or known[0] != worker:
            known = self._messages[place] = (worker, record_to_message(worker, records_pb2.WorkerObserved))
        return known[1]

    def _handle(self, response: Any) -> None:
        self._answered_s = _now_s()
        self._backoff.reset()
        self._patience.heard()
        kind = response.WhichOneof("message")
        if kind == "desired":
            self._obey(response.desired)
        elif kind == "ack":
            self._figures.acknowledge(response.ack.figures_sequence)
            self._reports.acknowledge(response.ack.sequence)

    def _obey(self, desired: agent_pb2.AgentDesired) -> None:
        if desired.epoch < self.epoch:
            return
        self.epoch = desired.epoch
        self._heartbeat_s = desired.heartbeat_s or self._heartbeat_s
        workers = [message_to_record(worker, WorkerDesired) for worker in desired.workers]
        orders = tuple(Order(w.job_uid, w.slot, w.incarnation, w.instruction.value, w.generation) for w in workers)
        self._obeyed.append(
            Obeyed(_now_s(), self.process.name, self.incarnation, desired.epoch, desired.version, orders)
        )
        by_job: dict[str, list[WorkerDesired]] = {uid: [] for uid in self._parts}
        for worker in workers:
            by_job.setdefault(worker.job_uid, []).append(worker)
        for uid, wanted in by_job.items():
            if uid not in self._parts:
                self._parts[uid] = self._plane.part(uid, wanted[0], self, self.node, self.incarnation)
            self._plane.order(self._parts[uid], uid, wanted)
        self._desired_version = desired.version
        self.changed()

    def _forget_all(self) -> None:
        """Its life was declared over: it ends its workers before it begins another one."""
        for uid in list(self._parts):
            self._plane.gone(uid, self._parts.pop(uid), _now_s())


def _now_s() -> float:
    return asyncio.get_running_loop().time()
