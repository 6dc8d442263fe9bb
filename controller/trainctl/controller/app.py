"""The controller, put together: everything it owns, in the order it starts and stops."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainctl.controller import keys
from trainctl.controller.agents.registry import AgentRegistry
from trainctl.controller.cluster.local import LocalCluster
from trainctl.controller.cluster.port import AgentProcess, AgentRequest
from trainctl.controller.jobs.book import JobBook
from trainctl.controller.jobs.closing import Closing
from trainctl.controller.jobs.deletion import Deletions
from trainctl.controller.jobs.requests import RequestLog
from trainctl.controller.jobs.submission import Submissions
from trainctl.controller.jobs.verbs import Verbs
from trainctl.controller.leadership import Leadership
from trainctl.controller.metrics.registry import ControllerMetrics, MetricsServer
from trainctl.controller.nodes import NodeKeeper
from trainctl.controller.reconciler import Reconciler
from trainctl.controller.rpc.agent_service import AgentService
from trainctl.controller.rpc.interceptor import Gate
from trainctl.controller.rpc.job_service import ControllerFacts, JobService
from trainctl.controller.rpc.log_relay import LogRelay
from trainctl.controller.rpc.server import RpcServer
from trainctl.controller.run_dir import RunDir
from trainctl.controller.steady_clock import SteadyClock
from trainctl.controller.store.sqlite import SqliteStore
from trainctl.core.errors import ConflictError, FencedError, UnavailableError
from trainctl.core.system.clock import SystemClock
from trainctl.core.system.faults import FaultPlan
from trainctl.protos.version import package_version

_log = logging.getLogger(__name__)
SAMPLE_EVERY_S = 1.0
AWAKE_EVERY_S = 0.25
SETTLE_S = 10.0
"""Longer than an agent ever pauses between two tries to connect; over as soon as all known agents have reported."""

AgentCommand = Callable[[AgentRequest, Path, str], Sequence[str]]
"""From a request, the node's folder and the controller's address to an agent's command line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to run.

    Attributes:
        run_dir: the controller's folder.
        host: to listen on.
        port: to listen on; 0: the former one of this folder, or any.
        metrics_port: 0: any.
        agents: local agents to keep running.
        slots: workers that each of them takes.
        store: file of the state store.
        respawn_delay_s: pause before a dead agent is started again.
        agent_command: how agents are started.
    """

    run_dir: RunDir
    host: str = "127.0.0.1"
    port: int = 0
    metrics_port: int = 0
    agents: int = 0
    slots: int = 1
    store: Path | None = None
    respawn_delay_s: float = 0.2
    agent_command: AgentCommand | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Controller:
    """A controller that serves."""

    address: str
    metrics_address: str
    leadership: Leadership
    failed: asyncio.Future[None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    clock: SteadyClock
    metrics: ControllerMetrics
    store: SqliteStore
    leadership: Leadership
    agents: AgentRegistry
    book: JobBook
    reconciler: Reconciler


@asynccontextmanager
async def controller(settings: Settings) -> AsyncIterator[Controller]:
    """Runs a controller in this event loop for as long as the block lasts. Agents are left running.

    Raises:
        TrainctlError: the folder, the store or a port cannot be had.
    """
    run = settings.run_dir
    run.prepare()
    token = run.token()
    async with AsyncExitStack() as stack:
        parts = await _open(settings, stack)
        server = _server(settings, parts, token)
        address = _bind(settings, server)
        metrics_server = MetricsServer(parts.metrics, settings.host, settings.metrics_port)
        stack.push_async_callback(asyncio.to_thread, metrics_server.close)
        keeper = _keeper(settings, parts, address, stack)
        await keeper.observe()
        await server.start()
        stack.push_async_callback(server.stop)
        stack.callback(parts.agents.close_sessions)
        run.write(
            address=address,
            metrics_address=metrics_server.address,
            version=package_version(),
            started_s=parts.clock.now_s(),
        )
        failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        background = (
            parts.reconciler.run(),
            keeper.run(),
            Deletions(parts.book, parts.agents, run.jobs, parts.clock.now_s).run(),
            Closing(parts.book, parts.agents).run(),
            _stay_awake(parts),
            _sample(parts, keeper),
            _until_fenced(parts.leadership),
        )
        for work in background:
            stack.push_async_callback(_end, _start(work, failed))
        _log.info("controller serves", extra={"address": address, "epoch": parts.leadership.epoch})
        yield Controller(
            address=address, metrics_address=metrics_server.address, leadership=parts.leadership, failed=failed
        )


async def _open(settings: Settings, stack: AsyncExitStack) -> _Parts:
    """The store, the leadership, and all that an earlier life left behind."""
    run = settings.run_dir
    clock = SteadyClock(SystemClock())
    books: list[JobBook] = []
    metrics = ControllerMetrics(lambda: books[0].newest_by_name() if books else (), clock.now_s)
    store = await SqliteStore.open(
        _store_file(settings),
        on_request=lambda op, seconds: metrics.observe("trainctl_store_request_seconds", seconds, op=op),
    )
    stack.push_async_callback(store.close)
    who = f"{socket.gethostname()}:{os.getpid()}"
    leadership = await Leadership.take(store, who, counter=metrics)
    agents = AgentRegistry(clock.monotonic_s, settle_s=SETTLE_S)
    agents.load((await store.range(keys.NODES)).items)
    agents.load_marks((await store.range(keys.MARKS)).items)
    book = JobBook(store, leadership, now_s=clock.now_s, figures_folder=run.figures, faults=FaultPlan())
    clock.not_before(await book.load())
    await book.catch_up()
    books.append(book)
    metrics.set("trainctl_leader", 1, controller=who)
    metrics.set("trainctl_leader_epoch", leadership.epoch, controller=who)
    metrics.set("trainctl_build_info", 1, version=package_version())
    return _Parts(
        clock=clock,
        metrics=metrics,
        store=store,
        leadership=leadership,
        agents=agents,
        book=book,
        reconciler=Reconciler(book, agents, leadership, clock, metrics),
    )


def _server(settings: Settings, parts: _Parts, token: str) -> RpcServer:
    logs = LogRelay(parts.agents)
    jobs = JobService(
        book=parts.book,
        agents=parts.agents,
        reconciler=parts.reconciler,
        verbs=Verbs(parts.book, parts.agents, RequestLog(parts.store), parts.leadership, parts.clock.now_s),
        submissions=Submissions(parts.book, parts.agents, parts.store, settings.run_dir.jobs, parts.clock.now_s),
        logs=logs,
        clock=parts.clock,
        facts=ControllerFacts(epoch=parts.leadership.epoch, store=str(_store_file(settings))),
    )
    agents = AgentService(
        book=parts.book,
        agents=parts.agents,
        reconciler=parts.reconciler,
        leadership=parts.leadership,
        logs=logs,
        clock=parts.clock,
        metrics=parts.metrics,
    )
    return RpcServer(jobs, agents, Gate(token, parts.metrics))


def _bind(settings: Settings, server: RpcServer) -> str:
    """The given port, or the former one: agents that run on look for their controller there."""
    former = settings.run_dir.former_port()
    if settings.port or not former:
        return server.bind(settings.host, settings.port)
    try:
        return server.bind(settings.host, former)
    except ConflictError:
        _log.warning("the former port %d is taken: agents that still run there will not find this controller", former)
        return server.bind(settings.host, 0)


def _keeper(settings: Settings, parts: _Parts, address: str, stack: AsyncExitStack) -> NodeKeeper:
    slots = settings.slots
    nodes = [
        AgentRequest(node=f"node-{index}", slots=slots, first_local_rank=index * slots)
        for index in range(settings.agents)
    ]
    command = settings.agent_command or _agent_command(settings.run_dir.token_file)
    cluster = LocalCluster(settings.run_dir.nodes, nodes, lambda request, folder: command(request, folder, address))
    stack.push_async_callback(cluster.close)

    def seen(processes: tuple[AgentProcess, ...]) -> None:
        parts.agents.processes(processes)
        parts.reconciler.look_at_all()

    return NodeKeeper(
        cluster, parts.store, parts.leadership, SystemClock(), respawn_delay_s=settings.respawn_delay_s, seen=seen
    )


def _agent_command(token_file: Path) -> AgentCommand:
    def command(request: AgentRequest, folder: Path, address: str) -> Sequence[str]:
        program = (sys.executable, "-m", "trainctl.agent")
        where = ("--controller", address, "--node", request.node, "--slots", str(request.slots))
        here = ("--first-local-rank", str(request.first_local_rank), "--dir", str(folder))
        return (*program, *where, *here, "--token-file", str(token_file))

    return command


def _store_file(settings: Settings) -> Path:
    return settings.store or settings.run_dir.store_file


async def _stay_awake(parts: _Parts) -> None:
    """Lets the registry notice when this process was frozen."""
    while True:
        await asyncio.sleep(AWAKE_EVERY_S)
        parts.agents.awake()


async def _sample(parts: _Parts, keeper: NodeKeeper) -> None:
    """Gauges that nobody pushes."""
    metrics = parts.metrics
    while True:
        due_s = parts.clock.monotonic_s() + SAMPLE_EVERY_S
        await asyncio.sleep(SAMPLE_EVERY_S)
        metrics.set("trainctl_event_loop_lag_seconds", max(0.0, parts.clock.monotonic_s() - due_s))
        metrics.set("trainctl_reconcile_queue_depth", parts.reconciler.queue_depth())
        metrics.set("trainctl_intents_pending", keeper.intents_pending)
        with contextlib.suppress(UnavailableError):
            metrics.set("trainctl_store_db_bytes", await parts.store.size_bytes())


async def _until_fenced(leadership: Leadership) -> None:
    await leadership.fenced.wait()
    raise FencedError("another controller leads; this one stops", hint="the agents find the new one by themselves")


def _start(work: Coroutine[Any, Any, None], failed: asyncio.Future[None]) -> asyncio.Task[None]:
    """Runs ``work`` beside the server; if it ends with an exception, so does the controller."""
    task = asyncio.create_task(work)

    def ended(task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and not failed.done():
            failed.set_exception(error)

    task.add_done_callback(ended)
    return task


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, Exception):
        await task
