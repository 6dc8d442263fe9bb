"""A controller that only listens and says what a test wants, and the agent process under test."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc

from trainctl.core.errors import FencedError, PermissionDeniedError, PreconditionError, TrainctlError
from trainctl.core.records.step import StepFigures
from trainctl.core.records.worker import CheckpointReport, Instruction, WorkerDesired, WorkerObserved, WorkerPhase
from trainctl.core.system.processes import identify, is_alive
from trainctl.protos.convert import message_to_record, record_to_message
from trainctl.protos.status import code_of, trailing_metadata
from trainctl.protos.v1 import agent_pb2, agent_pb2_grpc, records_pb2
from waiting import until_async

ROOT = Path(__file__).resolve().parents[3]
FAKE_WORKER = "multiproc.agent_support.workers:main"
FAKE_STORE = "multiproc.agent_support.workers:store"


def exists(pid: int) -> bool:
    """Whether the process is there, be it as a zombie."""
    return Path(f"/proc/{pid}").exists()


def runs(pid: int) -> bool:
    """Whether the process runs; one that only waits to be reaped does not."""
    process = identify(pid)
    return process is not None and is_alive(process)


def maps(pid: int) -> str:
    """Files mapped into a process."""
    return Path(f"/proc/{pid}/maps").read_text()


def worker(
    slot: int = 0, incarnation: int = 1, instruction: Instruction = Instruction.STANDBY, generation: int = 0,
    *, behaviour: str = "", grace_s: float = 10.0,
) -> WorkerDesired:  # fmt: skip
    return WorkerDesired(
        job_uid="uid-1", job_name="job", island="island-0", slot=slot, incarnation=incarnation, instruction=instruction,
        generation=generation, spec={"spec": {"env": {"FAKE_WORKER": behaviour}}}, grace_s=grace_s,
    )  # fmt: skip


class FakeController(agent_pb2_grpc.AgentServiceServicer):
    def __init__(self) -> None:
        self.epoch = 1
        self.version = 0
        self.desired: tuple[WorkerDesired, ...] = ()
        self.registrations: list[agent_pb2.RegisterRequest] = []
        self.metadata: dict[str, str] = {}
        self.hellos: list[agent_pb2.AgentHello] = []
        self.observed = agent_pb2.AgentObserved()
        self.observations = 0
        self.figures: list[StepFigures] = []
        self.checkpoints: list[CheckpointReport] = []
        self.chunks: list[agent_pb2.LogChunk] = []
        self.goodbyes: list[str] = []
        self.refuse: TrainctlError | None = None
        self.refuse_session: TrainctlError | None = None
        self.acknowledging = True
        self.heartbeat_s = 0.2
        self.orphan_timeout_s = 60.0
        self.outgoing: asyncio.Queue[agent_pb2.SessionResponse] = asyncio.Queue()
        self.port = 0
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        self._server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
        agent_pb2_grpc.add_AgentServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    def want(self, *workers: WorkerDesired, epoch: int | None = None) -> None:
        self.version += 1
        self.desired = workers
        self.send_desired(epoch=epoch)

    def send_desired(self, *, epoch: int | None = None) -> None:
        messages = [record_to_message(each, records_pb2.WorkerDesired) for each in self.desired]
        desired = agent_pb2.AgentDesired(epoch=epoch or self.epoch, version=self.version, workers=messages)
        self.outgoing.put_nowait(agent_pb2.SessionResponse(desired=desired))

    def workers(self) -> list[WorkerObserved]:
        return [message_to_record(each, WorkerObserved) for each in self.observed.workers]

    def find(self, incarnation: int) -> WorkerObserved | None:
        return next((each for each in self.workers() if each.incarnation == incarnation), None)

    def phase(self, incarnation: int) -> WorkerPhase | None:
        found = self.find(incarnation)
        return found.phase if found else None

    def lines(self, request_id: str) -> list[str]:
        return [line for chunk in self.chunks if chunk.request_id == request_id for line in chunk.lines]

    async def Register(  # noqa: N802
        self, request: agent_pb2.RegisterRequest, context: grpc.aio.ServicerContext[object, object]
    ) -> agent_pb2.RegisterResponse:
        if self.refuse is not None:
            await refuse(context, self.refuse)
        self.metadata = {key: str(value) for key, value in context.invocation_metadata() or ()}
        self.registrations.append(request)
        self.refuse_session = None
        return agent_pb2.RegisterResponse(
            agent_incarnation=100 + len(self.registrations),
            epoch=self.epoch,
            heartbeat_s=self.heartbeat_s,
            orphan_timeout_s=self.orphan_timeout_s,
        )

    async def Renew(  # noqa: N802
        self, request: agent_pb2.RenewRequest, context: grpc.aio.ServicerContext[object, object]
    ) -> agent_pb2.RenewResponse:
        raise NotImplementedError  # there are no certificates here

    async def Session(  # noqa: N802
        self, requests: AsyncIterator[agent_pb2.SessionRequest], context: grpc.aio.ServicerContext[object, object]
    ) -> AsyncIterator[agent_pb2.SessionResponse]:
        if self.refuse_session is not None:
            # As a real controller: a life that is over is refused for as long as the agent comes with it.
            error = self.refuse_session
            if error.code != "STALE_INCARNATION":
                self.refuse_session = None
            await refuse(context, error)
        self.outgoing = asyncio.Queue()
        self.send_desired()
        reader = asyncio.create_task(self._read(requests))
        try:
            while True:
                yield await self.outgoing.get()
        finally:
            reader.cancel()

    async def _read(self, requests: AsyncIterator[agent_pb2.SessionRequest]) -> None:
        async for request in requests:
            kind = request.WhichOneof("message")
            ack = agent_pb2.Ack()
            if kind == "hello":
                self.hellos.append(request.hello)
            elif kind == "observed":
                self.observed = request.observed
                self.observations += 1
                ack.sequence = request.observed.sequence
            elif kind == "figures":
                self.figures += [message_to_record(each, StepFigures) for each in request.figures.figures]
                ack.figures_sequence = request.figures.sequence
            elif kind == "checkpoint":
                self.checkpoints.append(message_to_record(request.checkpoint, CheckpointReport))
            elif kind == "log_chunk":
                self.chunks.append(request.log_chunk)
            elif kind == "goodbye":
                self.goodbyes.append(request.goodbye.reason)
            if self.acknowledging and ack.ByteSize():
                self.outgoing.put_nowait(agent_pb2.SessionResponse(ack=ack))


async def refuse(context: grpc.aio.ServicerContext[object, object], error: TrainctlError) -> None:
    await context.abort(code_of(error), str(error), trailing_metadata=trailing_metadata(error))


def stale() -> TrainctlError:
    return _with_code(FencedError("this life was declared over"), "STALE_INCARNATION")


def mismatch() -> TrainctlError:
    return _with_code(PreconditionError("wire 2 expected", hint="do something"), "VERSION_MISMATCH")


def unauthenticated() -> TrainctlError:
    return _with_code(PermissionDeniedError("wrong token", hint="do something"), "UNAUTHENTICATED")


def _with_code(error: TrainctlError, code: str) -> TrainctlError:
    error.code = code
    return error


class AgentProcess:
    def __init__(self, folder: Path, port: int, *extra: str, preload: str = "", real_store: bool = False) -> None:
        self.folder = folder
        self.log = folder.with_name(f"{folder.name}.stderr")
        self.tag = f"TEST_AGENT_TAG={folder}"
        store = () if real_store else ("--store-entry", FAKE_STORE)
        command = [
            *(sys.executable, "-m", "trainctl.agent", "--controller", f"127.0.0.1:{port}", "--node", "node-0"),
            *("--slots", "2", "--dir", str(folder), "--worker-entry", FAKE_WORKER, "--preload", preload),
            *store,
            *extra,
        ]
        parts = ("protos", "parallel", "checkpoint", "controller", "agent", "tests")
        env = os.environ | {
            "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in parts),
            "TEST_AGENT_TAG": str(folder),
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=env, stderr=log, stdout=log, start_new_session=True)

    @property
    def pid(self) -> int:
        return self.process.pid

    def family(self) -> dict[int, str]:
        """All living processes that descend from this agent, whoever their parent is now: pid -> kind."""
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    tagged = self.tag.encode() in (entry / "environ").read_bytes().split(b"\0")
                    command = (entry / "cmdline").read_bytes()
                except (OSError, ProcessLookupError):
                    continue
                if tagged and command:  # a zombie has neither
                    found[int(entry.name)] = "server or child" if b"forkserver" in command else "agent"
        return found

    def server_pid(self) -> int:
        """The fork server: the child of the agent."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return int(children[0])

    def ended(self) -> bool:
        return self.process.poll() is not None

    def stderr(self) -> str:
        return self.log.read_text()


@asynccontextmanager
async def agent_and_controller(
    folder: Path, *extra: str, preload: str = "", real_store: bool = False, controller: FakeController | None = None
) -> AsyncIterator[tuple[AgentProcess, FakeController]]:
    controller = controller or FakeController()
    await controller.start()
    agent = AgentProcess(folder / "node-0", controller.port, *extra, preload=preload, real_store=real_store)
    try:
        await until_async(lambda: controller.observed.store_address or agent.ended())
        yield agent, controller
    except BaseException:
        print(agent.stderr())
        raise
    finally:
        agent.process.kill()
        agent.process.wait()
        await controller.stop()
        await until_async(lambda: not agent.family())
