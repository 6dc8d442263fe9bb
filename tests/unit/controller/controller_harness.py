"""A real controller with a real server in the test's own event loop, and agents that are played by the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import json_format
from grpc import aio

from trainctl.controller.app import Controller, Settings, controller
from trainctl.controller.run_dir import RunDir
from trainctl.core.errors import NotFoundError
from trainctl.core.records.generation import CheckpointRef
from trainctl.core.records.step import Phase, StepFigures, StepReport
from trainctl.core.records.worker import (
    CheckpointReport,
    Instruction,
    Progress,
    WorkerDesired,
    WorkerObserved,
    WorkerPhase,
)
from trainctl.protos.convert import message_to_record, record_to_message
from trainctl.protos.status import error_from_rpc
from trainctl.protos.v1 import agent_pb2, agent_pb2_grpc, job_pb2, job_pb2_grpc, records_pb2
from trainctl.protos.version import WIRE_VERSION, call_metadata
from waiting import PATIENCE_S

BEAT_S = 1.0
Metadata = tuple[tuple[str, str], ...]


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(2 * PATIENCE_S):
            await main()

    asyncio.run(bounded())


def spec(
    name: str = "a",
    *,
    nodes: int = 1,
    per_node: int = 1,
    corpus: str = "python-stdlib",
    profile: str = "fast",
    **train: Any,
) -> Any:
    """A job file. ``FakeAgent`` speaks only when something changes: whoever waits for long says ``patient``."""
    return {
        "metadata": {"name": name},
        "spec": {
            "nodes": {"min": nodes, "max": nodes},
            "resources": {"workersPerNode": per_node},
            "recovery": {"profile": profile},
            "train": {"steps": 10, "data": {"uri": corpus}, "batch": {"sequences": 8, "microBatches": 4}, **train},
        },
    }


def create(job: Mapping[str, Any], request_id: str = "", *, validate_only: bool = False) -> job_pb2.CreateJobRequest:
    message = json_format.ParseDict(dict(job), records_pb2.TrainJob())
    return job_pb2.CreateJobRequest(job=message, request_id=request_id, validate_only=validate_only)


@dataclass(slots=True)
class Client:
    """Calls as the command line would; errors come back as ours."""

    channel: aio.Channel
    metadata: Metadata
    jobs: Any = field(init=False)
    agents: Any = field(init=False)

    def __post_init__(self) -> None:
        self.jobs = job_pb2_grpc.JobServiceStub(self.channel)
        self.agents = agent_pb2_grpc.AgentServiceStub(self.channel)

    async def call(self, method: str, request: Any, *, timeout_s: float = 60.0) -> Any:
        try:
            return await getattr(self.jobs, method)(request, metadata=self.metadata, timeout=timeout_s)
        except grpc.RpcError as error:
            raise error_from_rpc(error) from error

    async def job(self, name: str) -> job_pb2.Job:
        job: job_pb2.Job = (await self.call("GetJob", job_pb2.GetJobRequest(name=name))).job
        return job

    async def until(self, name: str, condition: Callable[[job_pb2.Job], bool]) -> job_pb2.Job:
        call = self.jobs.WatchJob(job_pb2.WatchJobRequest(name=name), metadata=self.metadata, timeout=PATIENCE_S)
        try:
            async for update in call:
                job: job_pb2.Job = update.job
                if condition(job):
                    return job
        except grpc.RpcError as error:
            raise AssertionError(f"not fulfilled: {error}; last seen: {await self.job(name)}") from error
        raise AssertionError(f"the job ended before that: {await self.job(name)}")

    async def until_phase(self, name: str, phase: str) -> job_pb2.Job:
        return await self.until(name, lambda job: job.status.phase == phase)

    async def until_gone(self, uid: str) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    await self.job(uid)
                except NotFoundError:
                    return
                await asyncio.sleep(0.01)


@dataclass(frozen=True, slots=True)
class Running:
    """A controller that serves, and a client of it."""

    controller: Controller
    client: Client

    async def agent(self, node: str = "node-0", slots: int = 2) -> FakeAgent:
        agent = FakeAgent(self.client, node, slots)
        await agent.register()
        agent.connect()
        await agent.until(lambda: agent.acked.sequence > 0)
        return agent


@asynccontextmanager
async def serving(folder: Path, **changes: Any) -> AsyncIterator[Running]:
    settings = replace(Settings(run_dir=RunDir(folder)), **changes)
    async with controller(settings) as running, aio.insecure_channel(running.address) as channel:
        token = (folder / "token").read_text().strip()
        yield Running(running, Client(channel, call_metadata(token)))


class FakeAgent:
    """Plays an agent whose workers do at once whatever they are told."""

    def __init__(self, client: Client, node: str, slots: int) -> None:
        self.client = client
        self.node = node
        self.slots = slots
        self.incarnation = 0
        self.desired: tuple[WorkerDesired, ...] = ()
        self.epoch = 0
        self.workers: dict[tuple[int, int], WorkerObserved] = {}
        self.deleted_jobs: tuple[str, ...] = ()
        self.saved: list[int] = []
        self.acked = agent_pb2.Ack()
        self.log_requests: list[agent_pb2.LogRequest] = []
        self.error: grpc.RpcError | None = None
        self._sequence = 0
        self._outgoing: asyncio.Queue[agent_pb2.SessionRequest | None] = asyncio.Queue()
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def register(self) -> int:
        request = agent_pb2.RegisterRequest(
            node=self.node,
            address="127.0.0.1",
            pid=1,
            slots=self.slots,
            version="test",
            wire_version=WIRE_VERSION,
            failure_domain="rack-4",
        )
        reply = await self.client.agents.Register(request, metadata=self.client.metadata, timeout=10)
        self.incarnation = reply.agent_incarnation
        return self.incarnation

    def connect(self, *, observes: bool = True) -> None:
        """Opens a session. One that shall be refused says nothing more: grpc.aio may lose the status to a write."""
        hello = agent_pb2.AgentHello(node=self.node, agent_incarnation=self.incarnation, epoch=self.epoch)
        self.error = None
        self._outgoing = asyncio.Queue()
        self.send(hello=hello)
        if observes:
            self.observe()
        self._task = asyncio.create_task(self._talk(beats=observes))

    async def disconnect(self) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def ended(self) -> grpc.RpcError | None:
        assert self._task is not None
        async with asyncio.timeout(PATIENCE_S):
            await self._task
        return self.error

    def send(self, **message: Any) -> None:
        self._outgoing.put_nowait(agent_pb2.SessionRequest(**message))

    def observe(self) -> None:
        self._sequence += 1
        workers = [record_to_message(worker, records_pb2.WorkerObserved) for worker in self.workers.values()]
        observed = agent_pb2.AgentObserved(sequence=self._sequence, store_address="127.0.0.1:1234", workers=workers)
        self.send(observed=observed)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self._news.clear()
                await self._news.wait()

    def exit_worker(self, slot: int, code: int) -> None:
        for key, worker in self.workers.items():
            if worker.slot == slot and worker.phase is not WorkerPhase.EXITED:
                self.workers[key] = replace(worker, phase=WorkerPhase.EXITED, exit_code=code)
        self.observe()

    def report_figures(self, job_uid: str, *steps: int, sequence: int = 1, generation: int = 1) -> None:
        figures = [record_to_message(figure(step, generation), records_pb2.StepFigures) for step in steps]
        self.send(figures=agent_pb2.FiguresBatch(job_uid=job_uid, sequence=sequence, figures=figures))

    async def _requests(self) -> AsyncIterator[agent_pb2.SessionRequest]:
        while (message := await self._outgoing.get()) is not None:
            yield message

    async def _beat(self) -> None:
        """A controller that had no turn for a while, on a busy machine, waits until everybody reports again."""
        while True:
            await asyncio.sleep(BEAT_S)
            self.observe()

    async def _talk(self, *, beats: bool) -> None:
        beat = asyncio.create_task(self._beat()) if beats else None
        try:
            async for response in self.client.agents.Session(self._requests(), metadata=self.client.metadata):
                self._take(response)
                self._news.set()
        except grpc.RpcError as error:
            self.error = error
        finally:
            if beat is not None:
                beat.cancel()
            self._news.set()

    def _take(self, response: agent_pb2.SessionResponse) -> None:
        kind = response.WhichOneof("message")
        if kind == "desired":
            self.epoch = response.desired.epoch
            self.desired = tuple(message_to_record(w, WorkerDesired) for w in response.desired.workers)
            self.deleted_jobs = tuple(response.desired.deleted_jobs)
            self._save_if_held()
            self._obey()
        elif kind == "ack":
            self.acked = response.ack
        elif kind == "log_request":
            self.log_requests.append(response.log_request)

    def _save_if_held(self) -> None:
        """Whoever is held has done one more step, and saved it if that is wanted."""
        for desired in self.desired:
            held = desired.hold and desired.checkpoint_on_stop and desired.record is not None
            if held and desired.record is not None and self.saved[-1:] != [held_step(desired)]:
                self.saved.append(held_step(desired))
                self.send(checkpoint=record_to_message(_report(desired), records_pb2.CheckpointReport))

    def _obey(self) -> None:
        before = dict(self.workers)
        wanted = {(d.slot, d.incarnation): d for d in self.desired}
        for key, desired in wanted.items():
            known = self.workers.get(key)
            if known is None or known.phase is not WorkerPhase.EXITED:
                self.workers[key] = obeyed(desired, pid=1000 + desired.slot)
        for key in [key for key in self.workers if key not in wanted]:
            del self.workers[key]
        if self.workers != before:
            self.observe()


def obeyed(desired: WorkerDesired, pid: int) -> WorkerObserved:
    base = WorkerObserved(
        job_uid=desired.job_uid, slot=desired.slot, incarnation=desired.incarnation, pid=pid, phase=WorkerPhase.READY
    )
    if desired.instruction is Instruction.PREPARE:
        report = StepReport(prepared_generation=desired.generation, lineage=0, applied_step=-1, schema_digest="same")
        return replace(base, report=report)
    if desired.instruction is Instruction.RUN:
        progress = Progress(generation=desired.generation, step=0)
        if desired.hold:
            progress = Progress(generation=desired.generation, step=held_step(desired), phase=Phase.HELD)
        return replace(base, phase=WorkerPhase.RUNNING, generation=desired.generation, progress=progress)
    if desired.instruction in (Instruction.STOP, Instruction.KILL):
        return replace(base, phase=WorkerPhase.EXITED, exit_code=0)
    return base


def held_step(desired: WorkerDesired) -> int:
    assert desired.record is not None
    return desired.record.target_step + 1


def _report(desired: WorkerDesired) -> CheckpointReport:
    record, step = desired.record, held_step(desired)
    assert record is not None
    ref = CheckpointRef(uri=f"/nowhere/{step}", step=step, lineage=record.lineage, attempt="a", manifest_sha256="0")
    return CheckpointReport(
        job_uid=record.job_uid, island=record.island, generation=record.generation, step=step, lineage=record.lineage,
        ref=ref,
    )  # fmt: skip


def figure(step: int, generation: int = 1, lineage: int = 1, loss: float = 2.0) -> StepFigures:
    return StepFigures(
        step=step, generation=generation, lineage=lineage, loss=loss, learning_rate=0.1, gradient_norm=1.0, tokens=100,
        cursor=8 * step, sample_digest=step, step_s=0.1, vote_s=0.01, reduce_s=0.01, wall_s=0.0,
    )  # fmt: skip
