"""Ten thousand agents and an hour: the real controller, and agents that do at once whatever they are told.

Heartbeats go straight into the open sessions of ``AgentService``; there are no faults but the death of many at once.
"""

from __future__ import annotations

import asyncio
import gc
import shutil
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from simulation.controllers import ControllerHost
from simulation.data_plane import MemoryFiles
from simulation.network import Network
from simulation.virtual_loop import run_virtually
from simulation.virtual_store import VirtualStore
from simulation.world import memory_folder
from trainctl.controller import keys
from trainctl.controller.main import NEW_OBJECTS
from trainctl.controller.rpc.services import Services
from trainctl.core.records.worker import Instruction, WorkerDesired, WorkerObserved
from trainctl.protos.convert import message_to_record, record_to_message
from trainctl.protos.v1 import agent_pb2, records_pb2
from trainctl.protos.version import WIRE_VERSION
from unit.controller.controller_harness import create, obeyed

HOUR_S = 3600.0
TURNS = 500
"""Moments of a heartbeat period at which a share of the agents reports."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Sizes of a run: one job of ``members`` nodes on ``agents``, of which ``dying`` die at once near its end."""

    agents: int = 10_000
    members: int = 1_000
    dying: int = 1_000
    hours: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaled:
    """What came of it.

    Attributes:
        wall_s: of the machine, for the steady time.
        cpu_s: of a core, in it.
        heartbeats: that came in it.
        generations: that were committed because of the deaths.
        tries: generations that were prepared for it; what is not committed nobody begins.
        verdicts_s: virtual seconds from the deaths until the last of the job's dead members was known to be lost.
        recovered_s: until the job ran again.
        period_s: of the heartbeats.
    """

    wall_s: float
    cpu_s: float
    heartbeats: int
    generations: int
    tries: int
    verdicts_s: float
    recovered_s: float
    period_s: float


class _Inbox:
    """What an agent says, for the session to read."""

    __slots__ = ("_items", "_waiter")

    def __init__(self) -> None:
        self._items: deque[Any] = deque()
        self._waiter: asyncio.Future[None] | None = None

    def put(self, item: Any) -> None:
        self._items.append(item)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        while not self._items:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._items.popleft()


class ScaleAgent:
    """One agent; its workers do at once whatever they are told."""

    __slots__ = ("_message", "alive", "inbox", "incarnation", "name", "period_s", "services", "task", "workers")

    def __init__(self, name: str, services: Services) -> None:
        self.name = name
        self.services = services
        self.alive = True
        self.incarnation = 0
        self.period_s = 0.0
        self.inbox = _Inbox()
        self.workers: dict[tuple[str, int], WorkerObserved] = {}
        self._message = agent_pb2.SessionRequest()
        self.task: asyncio.Task[None] | None = None

    async def join(self) -> None:
        request = agent_pb2.RegisterRequest(
            node=self.name, address=self.name, pid=1, slots=1, wire_version=WIRE_VERSION, device="cpu"
        )
        reply = await self.services.agents.Register(request, None)
        self.incarnation, self.period_s = reply.agent_incarnation, reply.heartbeat_s
        hello = agent_pb2.AgentHello(node=self.name, agent_incarnation=self.incarnation)
        self.inbox.put(agent_pb2.SessionRequest(hello=hello))
        self._observe()
        self.task = asyncio.create_task(self._listen())

    def beat(self) -> None:
        """Says what it said before."""
        if self.alive:
            self.inbox.put(self._message)

    def die(self) -> None:
        """Nobody is told."""
        self.alive = False

    async def _listen(self) -> None:
        async for response in self.services.agents.Session(self.inbox, None):
            if not self.alive:
                continue
            if response.WhichOneof("message") == "desired":
                self.period_s = response.desired.heartbeat_s or self.period_s
                self._obey(response.desired)

    def _obey(self, desired: agent_pb2.AgentDesired) -> None:
        orders = [message_to_record(one, WorkerDesired) for one in desired.workers]
        before = self.workers
        self.workers = {(o.job_uid, o.incarnation): self._worker(o) for o in orders}
        if self.workers != before:
            self._observe()

    def _worker(self, order: WorkerDesired) -> WorkerObserved:
        known = self.workers.get((order.job_uid, order.incarnation))
        if known is not None and order.instruction is Instruction.STANDBY:
            return known
        return obeyed(order, pid=1000 + order.slot)

    def _observe(self) -> None:
        workers = [record_to_message(worker, records_pb2.WorkerObserved) for worker in self.workers.values()]
        observed = agent_pb2.AgentObserved(sequence=1, store_address=f"{self.name}:1", workers=workers)
        self._message = agent_pb2.SessionRequest(observed=observed)
        self.beat()


class ScaleRun:
    """One controller and its agents."""

    def __init__(self, scale: Scale, folder: Path) -> None:
        self._scale = scale
        self.store = VirtualStore()
        self.network = Network(Random(1))
        self.host = ControllerHost("controller-0", folder, self.store, self.network, Random(2), 10.0, MemoryFiles())
        self.agents: list[ScaleAgent] = []
        self.heartbeats = 0

    async def run(self) -> Scaled:
        loop = asyncio.get_running_loop()
        self.host.start()
        await asyncio.sleep(5.0)
        services = self.network.server(self.host.address).services
        assert services is not None, "it leads"
        for number in range(self._scale.agents):
            agent = ScaleAgent(f"node-{number:05}", services)
            self.agents.append(agent)
            await agent.join()
        beats = asyncio.create_task(self._beat())
        await services.jobs.CreateJob(create(_job(self._scale.members)), None)
        await self._until_phase("RUNNING")
        gc.collect()
        gc.freeze()  # what is there now stays: to look through all of it again and again takes much of the time
        gc.set_threshold(NEW_OBJECTS)  # as a controller's process does
        self.heartbeats, began_s, used_s = 0, time.monotonic(), time.process_time()
        await asyncio.sleep(self._scale.hours * HOUR_S)
        wall_s, cpu_s, heartbeats = time.monotonic() - began_s, time.process_time() - used_s, self.heartbeats
        generations, died_s = sum("/members/" in key for key in self.store.keys), loop.time()
        number = self._state()["islands"][0]["generation"]
        members = _members(self._state())
        every = max(1, self._scale.agents // self._scale.dying)
        for agent in self.agents[::every]:
            agent.die()
        dead = {agent.name for agent in self.agents if not agent.alive} & members
        assert dead, "the job has members among the dead"
        verdicts_s = await self._until(lambda state: not dead & _bound(state), died_s)
        recovered_s = await self._until(
            lambda state: state["phase"] == "RUNNING" and not dead & _members(state), died_s
        )
        committed = sum("/members/" in key for key in self.store.keys) - generations
        beats.cancel()
        await self._end()
        return Scaled(
            wall_s=wall_s,
            cpu_s=cpu_s,
            heartbeats=heartbeats,
            generations=committed,
            tries=self._state()["islands"][0]["generation"] - number,
            verdicts_s=verdicts_s,
            recovered_s=recovered_s,
            period_s=self.agents[-1].period_s,
        )

    async def _beat(self) -> None:
        """Each agent once a period, spread over it."""
        while True:
            period_s = self.agents[-1].period_s
            for turn in range(TURNS):
                for agent in self.agents[turn::TURNS]:
                    agent.beat()
                    self.heartbeats += 1
                await asyncio.sleep(period_s / TURNS)

    def _state(self) -> Any:
        key = next(key for key in self.store.keys if key.startswith(keys.JOBS) and key.endswith(keys.STATUS))
        return keys.decode(self.store.keys[key].value)

    async def _until(self, condition: Any, began_s: float) -> float:
        loop, seen = asyncio.get_running_loop(), -1
        async with asyncio.timeout(300.0):
            while seen == self.store.revision or not condition(self._state()):
                seen = self.store.revision
                await asyncio.sleep(0.05)
        return loop.time() - began_s

    async def _until_phase(self, phase: str) -> None:
        await self._until(lambda state: state["phase"] == phase, 0.0)

    async def _end(self) -> None:
        for agent in self.agents:
            if agent.task is not None:
                agent.task.cancel()
        await asyncio.gather(*(agent.task for agent in self.agents if agent.task), return_exceptions=True)
        await self.host.bury()
        self.store.close()


def run_scale(scale: Scale) -> Scaled:
    """Runs it."""
    folder, thresholds = Path(tempfile.mkdtemp(prefix="simulation-", dir=memory_folder())), gc.get_threshold()
    try:
        return run_virtually(lambda: ScaleRun(scale, folder).run())
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()
        shutil.rmtree(folder)


def _members(state: Any) -> set[str]:
    return {member["node"] for member in state["islands"][0]["record"]["members"]}


def _bound(state: Any) -> set[str]:
    return {slot["node"] for slot in state["islands"][0]["slots"] if slot["node"]}


def _job(members: int) -> dict[str, Any]:
    return {
        "metadata": {"name": "large"},
        "spec": {
            "nodes": {"min": members, "max": members},
            "resources": {"workersPerNode": 1},
            "recovery": {"profile": "fast", "maxRestarts": {"user": 10**6, "process": 10**6}},
            "train": {
                "steps": 10**6,
                "data": {"uri": "python-stdlib"},
                "batch": {"sequences": members, "microBatches": members},
            },
        },
    }
