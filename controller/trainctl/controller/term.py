"""One term of leading: everything that acts on the jobs, in the order it starts and stops."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainctl.controller import keys
from trainctl.controller.access.audit_log import AuditLog
from trainctl.controller.access.token_book import TokenBook
from trainctl.controller.agents.registry import AgentRegistry
from trainctl.controller.cluster.fork_server import SharedForkServer
from trainctl.controller.cluster.local import LocalCluster
from trainctl.controller.cluster.port import AgentProcess, AgentRequest
from trainctl.controller.domain.metrics import TRAINING
from trainctl.controller.domain.term import Term
from trainctl.controller.domain.transfers import saves_in_flight
from trainctl.controller.frame import Frame, local_address
from trainctl.controller.installation import Sighting, save_sighting, went_back
from trainctl.controller.jobs.book import JobBook
from trainctl.controller.jobs.closing import Closing
from trainctl.controller.jobs.deletion import Deletions
from trainctl.controller.jobs.figure_recovery import FigureRecovery
from trainctl.controller.jobs.requests import RequestLog
from trainctl.controller.jobs.settling import Settling
from trainctl.controller.jobs.submission import Submissions
from trainctl.controller.jobs.verbs import Verbs
from trainctl.controller.leadership import Leadership
from trainctl.controller.migrations import migrate
from trainctl.controller.nodes import NodeKeeper
from trainctl.controller.reconciler import Reconciler
from trainctl.controller.rpc.access_service import AccessService
from trainctl.controller.rpc.admission import Admission
from trainctl.controller.rpc.agent_service import AgentService
from trainctl.controller.rpc.job_service import ControllerFacts, JobService
from trainctl.controller.rpc.join_service import JoinService, JoinTokenService
from trainctl.controller.rpc.log_relay import LogRelay
from trainctl.controller.rpc.network import Server
from trainctl.controller.rpc.services import Services
from trainctl.controller.security.taken_away import forget_certificates
from trainctl.controller.settings import AgentCommand
from trainctl.controller.store.compaction import compact_regularly
from trainctl.controller.store.trial import StoreTrial
from trainctl.core.errors import ConflictError, FencedError, UnavailableError

if TYPE_CHECKING:  # a controller without TLS never loads what makes certificates
    from trainctl.controller.security.nodes import NodeCertificates

_log = logging.getLogger(__name__)
SAMPLE_EVERY_S = 1.0
COUNT_SAVES_EVERY_S = 5.0
"""All workers are looked at for it; who reads metrics comes every 15 s."""
AWAKE_EVERY_S = 0.25
REMEMBER_EVERY_S = 5.0
SETTLE_S = 10.0
"""Longer than an agent ever pauses between two tries to connect; over as soon as all known agents have reported."""
DEAF_TERM_S = 10.0
"""A leader that heard agents and hears none for so long gives up its term; one that never heard any does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Controller:
    """A controller that leads and serves."""

    address: str
    metrics_address: str
    leadership: Leadership
    failed: asyncio.Future[None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    leadership: Leadership
    tokens: TokenBook
    audit: AuditLog
    agents: AgentRegistry
    book: JobBook
    reconciler: Reconciler
    nodes: NodeCertificates | None


@asynccontextmanager
async def leading(frame: Frame, leadership: Leadership, *, port: int) -> AsyncGenerator[Controller, None]:
    """Serves and acts for as long as the block lasts; agents are left running.

    Args:
        frame: of the process.
        leadership: held already.
        port: to listen on; 0: the former one of this folder, or any.

    Raises:
        TrainctlError: what earlier lives left behind cannot be read, or the port cannot be had.
    """
    async with AsyncExitStack() as stack:
        stack.callback(_write_down, frame, leadership)
        await _note_store(frame, leadership)
        await migrate(frame.store, leadership, frame.migrations)
        parts = await _open(frame, leadership, stack)
        server = _server(frame, parts)
        address = _bind(frame, server, port)
        keeper = _keeper(frame, parts, address, stack)
        await keeper.observe()
        await server.start()
        stack.push_async_callback(server.stop)
        stack.callback(parts.agents.close_sessions)
        frame.write_run_file(address)
        failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        stack.callback(_look_at, failed)
        background = (
            leadership.renew(frame.clock.monotonic_s, frame.settings.lease_ttl_s),
            parts.reconciler.run(),
            parts.audit.run(),
            keeper.run(),
            Deletions(parts.book, parts.agents, frame.settings.jobs_folder, frame.clock.now_s, frame.files).run(),
            Closing(parts.book, parts.agents).run(),
            Settling(parts.book).run(),
            FigureRecovery(parts.book, frame.clock.now_s).run(),
            _stay_awake(parts, others=not frame.store.exclusive),
            _sample(frame, parts, keeper),
            _count_saves(frame, parts),
            _remember_store(frame, leadership),
            compact_regularly(frame.store),
            _until_fenced(leadership),
        )
        for work in background:
            stack.push_async_callback(_end, _start(work, failed))
        _log.info("the controller serves", extra={"address": address, "epoch": leadership.epoch})
        yield Controller(address=address, metrics_address=frame.metrics_address, leadership=leadership, failed=failed)


async def _open(frame: Frame, leadership: Leadership, stack: AsyncExitStack) -> _Parts:
    """All that an earlier life left behind."""
    clock, metrics, store = frame.clock, frame.metrics, frame.store
    agents = AgentRegistry(clock.monotonic_s, settle_s=SETTLE_S, orphan_timeout_s=frame.settings.orphan_timeout_s)
    agents.load((await store.range(keys.NODES)).items)
    agents.load_marks((await store.range(keys.MARKS)).items)
    figures = frame.settings.run_dir.figures
    book = JobBook(store, leadership, now_s=clock.now_s, figures_folder=figures, faults=frame.faults)
    newest_s = await book.load()
    clock.not_before(newest_s)
    book.term = Term.begun(
        leadership.term,
        leadership.former,
        since_s=clock.now_s(),
        last_write_s=newest_s,
        orphan_timeout_s=frame.settings.orphan_timeout_s,
    )
    await book.catch_up()
    tokens = TokenBook(leadership, clock.now_s)
    tokens.load((await store.range(keys.TOKENS)).items)
    audit = AuditLog(store, leadership, now_s=clock.now_s, counter=metrics, faults=frame.faults)
    await audit.load()
    frame.shown.begin(book, 0.0 if store.exclusive else clock.now_s())
    stack.callback(frame.shown.end)
    metrics.set("trainctl_leader", 1, controller=frame.who)
    stack.callback(metrics.set, "trainctl_leader", 0, controller=frame.who)
    metrics.set("trainctl_leader_epoch", leadership.epoch, controller=frame.who)
    nodes, own_nodes = None, [request.node for request in _local_nodes(frame)]
    if frame.tls is None:
        await asyncio.to_thread(forget_certificates, frame.settings.run_dir.nodes, own_nodes)
    else:
        from trainctl.controller.security.local_agents import let_in, open_nodes

        nodes = await open_nodes(frame, frame.tls, leadership)
        await let_in(nodes, frame.settings.run_dir.nodes, own_nodes)
    return _Parts(
        nodes=nodes,
        leadership=leadership,
        tokens=tokens,
        audit=audit,
        agents=agents,
        book=book,
        reconciler=Reconciler(book, agents, leadership, clock, metrics, frame.chance),
    )


def _server(frame: Frame, parts: _Parts) -> Server:
    logs, clock = LogRelay(parts.agents, frame.chance), frame.clock
    jobs = JobService(
        book=parts.book,
        agents=parts.agents,
        reconciler=parts.reconciler,
        verbs=Verbs(parts.book, parts.agents, frame.store, parts.leadership, clock.now_s, frame.files),
        submissions=Submissions(
            parts.book, parts.agents, frame.store, frame.settings.jobs_folder, clock.now_s, frame.chance
        ),
        logs=logs,
        clock=clock,
        facts=ControllerFacts(
            leadership=parts.leadership,
            store=str(frame.settings.store_address),
            trial=StoreTrial(frame.store, clock.monotonic_s),
        ),
    )
    agents = AgentService(
        book=parts.book,
        agents=parts.agents,
        reconciler=parts.reconciler,
        leadership=parts.leadership,
        logs=logs,
        clock=clock,
        metrics=frame.metrics,
        nodes=parts.nodes,
        orphan_timeout_s=frame.settings.orphan_timeout_s,
    )
    return frame.network.serving(
        Services(
            jobs=jobs,
            agents=agents,
            access=AccessService(parts.tokens, parts.audit, RequestLog(frame.store)),
            tokens=parts.tokens,
            admission=_admission(frame, parts),
            join=JoinService(parts.nodes),
            join_tokens=JoinTokenService(parts.nodes),
            nodes=parts.nodes,
        )
    )


def _admission(frame: Frame, parts: _Parts) -> Admission:
    admission = Admission(
        owner_of=parts.book.owner_of,
        audit=parts.audit,
        limits=frame.settings.limits,
        metrics=frame.metrics,
        now_s=frame.clock.now_s,
        monotonic_s=frame.clock.monotonic_s,
    )
    parts.tokens.on_revoked(admission.streams.end)
    return admission


def _bind(frame: Frame, server: Server, port: int) -> str:
    """The given port, or the former one: agents that run on look for their controller there."""
    host, former = frame.settings.host, frame.settings.run_dir.former_port()
    if port or not former:
        return server.bind(host, port)
    try:
        return server.bind(host, former)
    except ConflictError:
        _log.warning("the former port %d is taken: agents that still run there will not find this controller", former)
        return server.bind(host, 0)


def _keeper(frame: Frame, parts: _Parts, address: str, stack: AsyncExitStack) -> NodeKeeper:
    settings = frame.settings
    command = settings.agent_command or _agent_command(frame, stack)
    where = local_address(address) if frame.tls is not None else address
    cluster = LocalCluster(
        settings.run_dir.nodes, _local_nodes(frame), lambda request, folder: command(request, folder, where)
    )
    stack.push_async_callback(cluster.close)

    def seen(processes: tuple[AgentProcess, ...]) -> None:
        parts.agents.processes(processes)
        parts.reconciler.look_at_all()

    return NodeKeeper(
        cluster, frame.store, parts.leadership, frame.clock, respawn_delay_s=settings.respawn_delay_s, seen=seen
    )


def _local_nodes(frame: Frame) -> list[AgentRequest]:
    slots = frame.settings.slots
    return [
        AgentRequest(node=f"node-{index}", slots=slots, first_local_rank=index * slots)
        for index in range(frame.settings.agents)
    ]


def _agent_command(frame: Frame, stack: AsyncExitStack) -> AgentCommand:
    settings, certified = frame.settings, frame.tls is not None
    token_file = settings.run_dir.token_file
    secrets = ("--secrets", str(settings.secrets)) if settings.secrets is not None else ()
    shared: tuple[str, ...] = ()
    if settings.agents:
        server = SharedForkServer(settings.run_dir.root)
        stack.callback(server.close)
        shared = ("--fork-server", str(server.socket))

    def command(request: AgentRequest, folder: Path, address: str) -> Sequence[str]:
        program = (sys.executable, "-m", "trainctl.agent")
        where = ("--controller", address, "--node", request.node, "--slots", str(request.slots))
        here = ("--first-local-rank", str(request.first_local_rank), "--dir", str(folder))
        shown = ("--join-token-file", str(folder / "join-token")) if certified else ("--token-file", str(token_file))
        return (*program, *where, *here, *shown, *secrets, *shared)

    return command


async def _stay_awake(parts: _Parts, *, others: bool) -> None:
    """Lets the registry notice when this process was frozen or hears nobody.

    Raises:
        UnavailableError: it hears no agent any more, and there may be other controllers that do.
    """
    while True:
        await asyncio.sleep(AWAKE_EVERY_S)
        parts.agents.awake()
        deaf_s = parts.agents.deaf_for_s()
        if others and deaf_s > DEAF_TERM_S:
            raise UnavailableError(
                f"no agent was heard for {deaf_s:.0f} s: this controller may be cut off from them",
                hint="another one takes over; if all agents are gone, it waits for them just as well",
            )


async def _sample(frame: Frame, parts: _Parts, keeper: NodeKeeper) -> None:
    """Gauges that nobody pushes."""
    metrics, clock = frame.metrics, frame.clock
    while True:
        due_s = clock.monotonic_s() + SAMPLE_EVERY_S
        await asyncio.sleep(SAMPLE_EVERY_S)
        metrics.set("trainctl_event_loop_lag_seconds", max(0.0, clock.monotonic_s() - due_s))
        metrics.set("trainctl_reconcile_queue_depth", parts.reconciler.queue_depth())
        metrics.set("trainctl_intents_pending", keeper.intents_pending)
        with contextlib.suppress(UnavailableError):
            metrics.set("trainctl_store_db_bytes", await frame.store.size_bytes())


async def _count_saves(frame: Frame, parts: _Parts) -> None:
    """For the metrics: what workers are saving."""
    while True:
        await asyncio.sleep(COUNT_SAVES_EVERY_S)
        view = parts.agents.view()
        running = [entry.state for entry in parts.book.live() if entry.state.phase in TRAINING]
        frame.shown.saves_in_flight = {state.uid: saves_in_flight(state, view) for state in running}


async def _remember_store(frame: Frame, leadership: Leadership) -> None:
    """What is not written down yet when this process is killed may be lost from a restored store unnoticed."""
    while True:
        await asyncio.sleep(REMEMBER_EVERY_S)
        with contextlib.suppress(UnavailableError):  # full, perhaps: it can be read all the same
            await leadership.sign(frame.clock.now_s())
        with contextlib.suppress(UnavailableError):
            await _note_store(frame, leadership)


async def _note_store(frame: Frame, leadership: Leadership) -> None:
    """Writes down how far the store is, so that an older one is noticed at the next start.

    Raises:
        FencedError: an older one has taken its place already.
    """
    before = leadership.newest
    leadership.saw((await frame.store.range(keys.EPOCH)).revision, asked_at=before)
    await asyncio.to_thread(_write_down, frame, leadership)


def _write_down(frame: Frame, leadership: Leadership) -> None:
    sighting = Sighting(epoch=leadership.epoch, revision=leadership.newest)
    try:
        save_sighting(frame.settings.run_dir.sighting_file, sighting)
    except OSError as error:  # a full disk is no reason to stop leading
        _log.error(
            "how the state store was left cannot be written down, so that a restored backup may not be noticed: %s",
            error,
        )


async def _until_fenced(leadership: Leadership) -> None:
    await leadership.fenced.wait()
    if leadership.found:
        raise went_back(f"revision {leadership.found}", f"revision {leadership.newest}")
    raise FencedError("another controller leads; this one stops", hint="the agents find the new one by themselves")


def _start(work: Coroutine[Any, Any, None], failed: asyncio.Future[None]) -> asyncio.Task[None]:
    """Runs ``work`` beside the server; if it ends with an exception, so does the term."""
    task = asyncio.create_task(work)

    def ended(task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and not failed.done():
            failed.set_exception(error)

    task.add_done_callback(ended)
    return task


def _look_at(failed: asyncio.Future[None]) -> None:
    """What fails while the term ends is nothing more to be told."""
    if failed.done() and not failed.cancelled():
        failed.exception()


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, Exception):
        await task
