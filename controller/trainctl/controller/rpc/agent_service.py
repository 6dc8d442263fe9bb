"""``AgentService``: agents register, then keep one stream open."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Generator
from typing import TYPE_CHECKING, Any

from trainctl.controller.access.caller import Kind, calling
from trainctl.controller.agents.agent import Agent, Registration
from trainctl.controller.agents.registry import AgentRegistry
from trainctl.controller.agents.session import AgentSession
from trainctl.controller.agents.unknown import note_unknown, unknown_words
from trainctl.controller.domain.job_state import JobState
from trainctl.controller.domain.reconcile import (
    Reconciliation,
    observe_checkpoint,
    observe_figures,
    observe_recovery,
)
from trainctl.controller.jobs.book import JobBook
from trainctl.controller.leadership import Leadership
from trainctl.controller.metrics.registry import ControllerMetrics
from trainctl.controller.reconciler import Reconciler
from trainctl.controller.rpc.interceptor import VersionMismatchError
from trainctl.controller.rpc.join_service import NoTlsError
from trainctl.controller.rpc.log_relay import LogRelay
from trainctl.controller.settings import ORPHAN_TIMEOUT_S
from trainctl.controller.steady_clock import SteadyClock
from trainctl.controller.tasks import to_the_end
from trainctl.core.codec import WireError, from_wire
from trainctl.core.errors import FencedError, NotFoundError, PermissionDeniedError, UnavailableError, UsageError
from trainctl.core.ids import NODE_NAME, is_node_name
from trainctl.core.records.step import StepFigures
from trainctl.core.records.worker import CheckpointReport, RecoveryReport, WorkerObserved
from trainctl.core.texts import quoted
from trainctl.protos.convert import message_to_dict, message_to_record
from trainctl.protos.v1 import agent_pb2, agent_pb2_grpc
from trainctl.protos.version import WIRE_VERSION, package_version

if TYPE_CHECKING:  # a controller without TLS never loads what makes certificates
    from trainctl.controller.security.nodes import NodeCertificates

_log = logging.getLogger(__name__)
MAX_SLOTS = 1024
_FOR_EVER_S = 7 * 86400.0
"""Longer than certificates live, and shorter than timers can be."""
Context = Any


DOUBT_HINT = (
    "the state store was restored from an old copy: "
    "restore a newer one, or start the controller once with --accept-store"
)


class StaleEpochError(FencedError):
    """The agent has seen more than this leader's store knows of."""

    code = "STALE_EPOCH"


class CertificateOverError(UnavailableError):
    """The certificate that a session was opened with has expired; the agent opens another one."""

    code = "CERTIFICATE_OVER"


class AgentService(agent_pb2_grpc.AgentServiceServicer):
    """Takes in what agents say, in the order they say it, and acknowledges only what is safe here."""

    def __init__(
        self,
        *,
        book: JobBook,
        agents: AgentRegistry,
        reconciler: Reconciler,
        leadership: Leadership,
        logs: LogRelay,
        clock: SteadyClock,
        metrics: ControllerMetrics,
        nodes: NodeCertificates | None = None,
        orphan_timeout_s: float = ORPHAN_TIMEOUT_S,
    ) -> None:
        self._orphan_timeout_s = orphan_timeout_s
        self._nodes = nodes
        self._book = book
        self._agents = agents
        self._reconciler = reconciler
        self._leadership = leadership
        self._logs = logs
        self._clock = clock
        self._metrics = metrics
        self._sessions = 0

    async def Register(self, request: agent_pb2.RegisterRequest, context: Context) -> agent_pb2.RegisterResponse:  # noqa: N802
        """Begins an agent's life; its incarnation is the revision of the transaction that records it."""
        if not is_node_name(request.node):
            raise UsageError(f"node: expected {NODE_NAME}; found {quoted(request.node)}", hint="change its --node")
        if not 0 < request.slots <= MAX_SLOTS:
            raise UsageError(f"slots: expected 1 to {MAX_SLOTS}, found {request.slots}", hint="change its --slots")
        if request.failure_domain and not is_node_name(request.failure_domain):
            raise UsageError(
                f"failure_domain: expected {NODE_NAME}; found {quoted(request.failure_domain)}",
                hint="change its --failure-domain",
            )
        _check_node(request.node)
        if request.wire_version != WIRE_VERSION:
            raise VersionMismatchError(
                f"agent of {request.node}: expected wire version {WIRE_VERSION} (controller {package_version()}), "
                f"found {request.wire_version} (agent {request.version})",
                hint="install the same version on both sides",
            )
        registration = from_wire(Registration, message_to_dict(request))
        incarnation = await to_the_end(self._agents.register(self._leadership, registration))
        _log.info("agent of %s registered", request.node, extra={"node": request.node, "incarnation": incarnation})
        self._reconciler.look_at_all()
        return agent_pb2.RegisterResponse(
            agent_incarnation=incarnation,
            epoch=self._leadership.epoch,
            heartbeat_s=self._agents.heartbeat_s,
            orphan_timeout_s=self._orphan_timeout_s,
        )

    async def Session(  # noqa: N802
        self, request_iterator: Any, context: Context
    ) -> AsyncIterator[agent_pb2.SessionResponse]:
        """The stream: reads until the agent ends it, writes whatever is due."""
        messages = aiter(request_iterator)
        first = await anext(messages, None)
        if first is None or first.WhichOneof("message") != "hello":
            raise UsageError("the first message of a session must be AgentHello")
        hello = first.hello
        _check_node(hello.node)
        doubt = self._agents.find_doubt(
            hello.node, incarnation=hello.agent_incarnation, epoch=hello.epoch, own_epoch=self._leadership.epoch
        )
        if doubt:
            raise StaleEpochError(doubt, hint=DOUBT_HINT)
        jobs = self._agents.jobs_of(hello.node, hello.agent_incarnation)
        desired = self._desired(hello.agent_incarnation, jobs)
        agent, session = self._agents.open(hello.node, hello.agent_incarnation, desired)
        agent.certificate_ends_s = calling().expires_s
        over = self._end_with_certificate(session)
        self._logs.session_opened(session)
        self._count_sessions(1)
        reading = asyncio.create_task(self._read(messages, agent, session), name=f"session-{hello.node}")
        reading.add_done_callback(lambda _: session.close())
        try:
            while (response := await session.next()) is not None:
                yield response
            if session.error is not None:
                raise session.error
            if reading.done():
                reading.result()
        finally:
            over.cancel()
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await reading
            self._agents.close(agent, session)
            self._logs.session_closed(session)
            self._count_sessions(-1)
            self._reconciler.look_at_jobs_on(agent.incarnation, ())

    async def Renew(self, request: agent_pb2.RenewRequest, context: Context) -> agent_pb2.RenewResponse:  # noqa: N802
        """A new certificate for the holder of this connection's."""
        if self._nodes is None:
            raise NoTlsError("this connection has no certificate that could be renewed")
        peer = self._nodes.peer(context.auth_context())
        certificate = await to_the_end(self._nodes.renew(peer, request.certificate_request))
        return agent_pb2.RenewResponse(certificate=certificate, authority=self._nodes.authority.pem)

    def _desired(self, incarnation: int, jobs: set[str]) -> Callable[[agent_pb2.AgentDesired], None]:
        def write(message: agent_pb2.AgentDesired) -> None:
            self._reconciler.write_desired(incarnation, message)
            jobs.update(worker.job_uid for worker in message.workers)

        return write

    def _end_with_certificate(self, session: AgentSession) -> asyncio.TimerHandle:
        """A stream lives no longer than what it was opened with; the agent renews that long before."""
        left_s = _FOR_EVER_S
        if self._nodes is not None and calling().expires_s:
            left_s = min(_FOR_EVER_S, self._nodes.left_s(calling().expires_s))
        over = CertificateOverError(
            f"node {session.node}: the certificate of this connection has expired",
            hint="the agent opens another connection with the certificate that it has renewed, or joins again",
        )
        return asyncio.get_running_loop().call_later(max(0.0, left_s), session.close, over)

    def _has_place(self, uid: str, agent: Agent) -> bool:
        """Whether a job has, or had, workers on this agent life; what others say of it is refused, and counted."""
        try:
            entry = self._book.entry(uid)
        except NotFoundError:
            return True  # deleted lately, or never there: whoever takes the report finds out
        if uid in agent.jobs or agent.incarnation in entry.uses():
            return True
        records = (island.record for island in entry.state.islands if island.record is not None)
        if any(member.agent_incarnation == agent.incarnation for record in records for member in record.members):
            return True
        self._refuse(agent, uid)
        return False

    def _may_speak_for(self, chunk: agent_pb2.LogChunk, agent: Agent) -> bool:
        """Whether a worker's lines may come from this agent: those of a life that another one keeps may not.

        Logs outlive agents, and so does what they are about: of lives that are over, every node may have some.
        """
        uid = self._logs.job_of(chunk.request_id)
        try:
            islands = self._book.entry(uid).state.islands if uid else ()
        except NotFoundError:
            return True
        lives = [(chunk.slot, chunk.incarnation), *((start.slot, start.incarnation) for start in chunk.starts)]
        slots = (
            (slot, life) for island in islands for index, life in lives for slot in island.slots[index : index + 1]
        )
        for slot, life in slots:
            if slot.bound and slot.incarnation == life != 0 and slot.agent_incarnation != agent.incarnation:
                self._refuse(agent, uid)
                return False
        return True

    def _refuse(self, agent: Agent, uid: str) -> None:
        self._metrics.inc("trainctl_refused_reports_total")
        _log.warning(
            "refused what the agent of %s says about job %s, which it has no part in", agent.registration.node, uid
        )

    async def _read(self, messages: Any, agent: Agent, session: AgentSession) -> None:
        hearing = self._agents.hearing(agent)
        with _understood(agent.registration):
            async for message in messages:
                with hearing:
                    await self._take(message, agent, session)

    async def _take(self, message: agent_pb2.SessionRequest, agent: Agent, session: AgentSession) -> None:
        kind = message.WhichOneof("message")
        if kind == "observed":
            self._observed(message.observed, agent, session)
        elif kind == "figures":
            if self._has_place(message.figures.job_uid, agent):
                await self._figures(message.figures)
            session.took_figures(message.figures.sequence)
        elif kind == "checkpoint":
            report = message_to_record(message.checkpoint, CheckpointReport)
            if self._has_place(report.job_uid, agent):
                await self._apply(report.job_uid, lambda s: observe_checkpoint(s, report, self._clock.now_s()))
            session.took_report()
        elif kind == "recovery":
            recovery = message_to_record(message.recovery, RecoveryReport)
            if self._has_place(recovery.job_uid, agent):
                await self._apply(recovery.job_uid, lambda s: observe_recovery(s, recovery, self._clock.now_s()))
            session.took_report()
        elif kind == "log_chunk":
            if self._may_speak_for(message.log_chunk, agent):
                self._logs.chunk(session, message.log_chunk)
        elif kind == "goodbye":
            _log.info("agent of %s says goodbye: %s", session.node, message.goodbye.reason)
        elif kind is None:
            note_unknown(agent, ["a message of another kind"])

    def _observed(self, observed: agent_pb2.AgentObserved, agent: Agent, session: AgentSession) -> None:
        workers = self._workers(observed, agent)
        news = self._agents.observed(agent, store_address=observed.store_address, workers=workers)
        self._metrics.inc("trainctl_heartbeats_total")
        session.took_observation(observed.sequence, self._agents.heartbeat_s)
        self._reconciler.look_at_jobs_on(agent.incarnation, workers, news=news)
        if news:
            self._show_steps(agent)

    def _workers(self, observed: agent_pb2.AgentObserved, agent: Agent) -> tuple[WorkerObserved, ...]:
        if observed.workers == agent.said:
            return agent.workers
        workers = tuple(message_to_record(worker, WorkerObserved) for worker in observed.workers)
        note_unknown(agent, unknown_words(workers))
        agent.said = observed.workers
        return workers

    def _show_steps(self, agent: Agent) -> None:
        """Who looks on at a job whose figures are of an earlier leader's term learns the step that its workers tell."""
        for entry in self._book.live():
            if entry.state.progress.updated_s < self._book.since_s and agent.incarnation in entry.uses():
                entry.changed.tell()

    async def _figures(self, batch: agent_pb2.FiguresBatch) -> None:
        """File first, then the job's progress, then the acknowledgement: a crash in between repeats, and loses none."""
        figures = [message_to_record(one, StepFigures) for one in batch.figures]
        try:
            entry = self._book.entry(batch.job_uid)
        except NotFoundError:
            return
        fresh = entry.figures.add(figures)
        for one in fresh:
            self._metrics.observe("trainctl_job_step_seconds", one.step_s, job_name=entry.state.shown_name)
        if fresh:
            await self._apply(batch.job_uid, lambda s: observe_figures(s, fresh, self._clock.now_s()))

    async def _apply(self, uid: str, decide: Callable[[JobState], Reconciliation]) -> None:
        try:
            await self._book.apply(uid, decide)
        except NotFoundError:
            _log.warning("refused a report on job %s, which this controller does not know", uid)

    def _count_sessions(self, more: int) -> None:
        self._sessions += more
        self._metrics.set("trainctl_agent_sessions", self._sessions)


@contextlib.contextmanager
def _understood(registration: Registration) -> Generator[None, None, None]:
    """Around what is done about a message. Raises: UsageError: it is none that this version can read."""
    try:
        yield
    except WireError as error:
        raise UsageError(
            f"agent of {registration.node} (trainctl {registration.version}): {error}; "
            f"this controller is trainctl {package_version()}",
            hint="use the same trainctl version on both sides",
        ) from error


def _check_node(node: str) -> None:
    """Raises: PermissionDeniedError: the caller's certificate is another node's."""
    caller = calling()
    if caller.kind is Kind.AGENT and caller.name != node:
        raise PermissionDeniedError(
            f"expected node {caller.name}, for which the certificate is; found node {node}",
            hint="start the agent with that --node, or join under the new name: trainctl nodes join-token",
        )
