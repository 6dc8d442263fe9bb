"""Agents whose workers do at once whatever they are told, many in one process, each on a socket of its own.

``python members.py HOST:PORT TOKEN_FILE FIRST COUNT SLOTS`` registers ``sim-FIRST`` and so on. Prints a JSON line when
all of them have answered PREPARE, and when all have been told a committed generation: what, of which generation, and
when the last one was. A line ``exit NODE`` on standard input ends the first worker of that node.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from grpc import aio

from trainctl.agent.security.calling import CHANNEL_OPTIONS
from trainctl.core.records.step import Phase
from trainctl.core.records.worker import Instruction, WorkerPhase
from trainctl.protos.v1 import agent_pb2, agent_pb2_grpc, records_pb2
from trainctl.protos.version import WIRE_VERSION, call_metadata, package_version

REGISTER_WITHIN_S = 3.0


def observed(desired: records_pb2.WorkerDesired) -> records_pb2.WorkerObserved:
    """What a worker shows that has done what it was told."""
    seen = records_pb2.WorkerObserved(
        job_uid=desired.job_uid,
        slot=desired.slot,
        incarnation=desired.incarnation,
        pid=1000 + desired.slot,
        phase=WorkerPhase.READY,
    )
    seen.progress.phase = Phase.READY
    if desired.instruction == Instruction.PREPARE:
        seen.report.prepared_generation = desired.generation
        seen.report.applied_step = -1
        seen.report.schema_digest = "same"
        seen.report.pristine = True
    elif desired.instruction == Instruction.RUN:
        seen.phase, seen.generation = WorkerPhase.RUNNING, desired.generation
        seen.progress.generation, seen.progress.phase = desired.generation, Phase.COMPUTE
    elif desired.instruction in (Instruction.STOP, Instruction.KILL):
        seen.phase, seen.exit_code = WorkerPhase.EXITED, 0
    return seen


class Told:
    """Counts who was told what; a line for every agent would cost more than to be told.

    Args:
        count: how many agents there are.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._nodes: dict[tuple[str, int], set[str]] = {}

    def note(self, node: str, what: str, generation: int) -> None:
        """One agent was."""
        nodes = self._nodes.setdefault((what, generation), set())
        new = node not in nodes
        nodes.add(node)
        if new and len(nodes) == self._count:
            print(json.dumps({"what": what, "generation": generation, "at_s": time.monotonic()}), flush=True)
            if what == "told" and generation == 1:
                # From now on time is measured, and a real agent's collector has one connection to look through.
                gc.collect()
                gc.freeze()


class Member:
    """One agent."""

    def __init__(self, target: str, token: str, number: int, slots: int, told: Told) -> None:
        self.node = f"sim-{number}"
        self._channel = aio.insecure_channel(target, options=CHANNEL_OPTIONS)
        self._stub: Any = agent_pb2_grpc.AgentServiceStub(self._channel)
        self._metadata = call_metadata(token)
        self._slots = slots
        self._incarnation = 0
        self._period_s = 1.0
        self._said_s = 0.0
        self._sequence = 0
        self._told = told
        self._workers: dict[tuple[int, int], records_pb2.WorkerObserved] = {}
        self._news = asyncio.Event()

    async def live(self) -> None:
        """Registers and stays."""
        await asyncio.sleep(random.uniform(0, REGISTER_WITHIN_S))
        request = agent_pb2.RegisterRequest(
            node=self.node, address="127.0.0.1", pid=os.getpid(), slots=self._slots, version=package_version(),
            wire_version=WIRE_VERSION, device="cpu",
        )  # fmt: skip
        reply = await self._stub.Register(request, metadata=self._metadata, timeout=60)
        self._incarnation, self._period_s = reply.agent_incarnation, reply.heartbeat_s
        beat = asyncio.create_task(self._beat())
        async for response in self._stub.Session(self._requests(), metadata=self._metadata):
            if response.WhichOneof("message") == "desired":
                self._obey(response.desired)
        beat.cancel()

    def exit_worker(self) -> None:
        """Its first worker dies."""
        seen = next(iter(self._workers.values()))
        seen.phase, seen.exit_code = WorkerPhase.EXITED, -9
        self._news.set()

    async def _beat(self) -> None:
        """As an agent does: when nothing else was said for so long."""
        while True:
            await asyncio.sleep(max(0.0, self._said_s + self._period_s - time.monotonic()))
            if time.monotonic() >= self._said_s + self._period_s:
                self._said_s = time.monotonic()
                self._news.set()

    async def _requests(self) -> AsyncIterator[agent_pb2.SessionRequest]:
        hello = agent_pb2.AgentHello(node=self.node, agent_incarnation=self._incarnation)
        yield agent_pb2.SessionRequest(hello=hello)
        while True:
            self._news.clear()
            self._sequence += 1
            self._said_s = time.monotonic()
            seen = agent_pb2.AgentObserved(
                sequence=self._sequence, store_address="127.0.0.1:1", workers=self._workers.values()
            )
            yield agent_pb2.SessionRequest(observed=seen)
            await self._news.wait()

    def _obey(self, desired: agent_pb2.AgentDesired) -> None:
        self._period_s = desired.heartbeat_s or self._period_s
        before, self._workers = self._workers, {}
        for worker in desired.workers:
            key = (worker.slot, worker.incarnation)
            known = before.get(key)
            gone = known is not None and known.phase == WorkerPhase.EXITED
            self._workers[key] = known if known is not None and gone else observed(worker)
        for instruction, what in ((Instruction.PREPARE, "answered"), (Instruction.RUN, "told")):
            generations = [w.generation for w in desired.workers if w.instruction == instruction]
            if generations:
                self._told.note(self.node, what, generations[0])
        self._news.set()


async def _main(target: str, token: str, numbers: range, slots: int) -> None:
    told = Told(len(numbers))
    members = {member.node: member for member in (Member(target, token, number, slots, told) for number in numbers)}
    loop = asyncio.get_running_loop()

    def command() -> None:
        node = sys.stdin.readline().split()[-1:]
        if node and node[0] in members:
            members[node[0]].exit_worker()

    loop.add_reader(sys.stdin.fileno(), command)
    async with asyncio.TaskGroup() as group:
        for member in members.values():
            group.create_task(member.live())


if __name__ == "__main__":
    address, token_file, begin, count, per_agent = sys.argv[1:]
    secret = Path(token_file).read_text().strip()
    asyncio.run(_main(address, secret, range(int(begin), int(begin) + int(count)), int(per_agent)))
