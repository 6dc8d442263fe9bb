"""``AgentService``: agents register, then keep one stream open."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

from trainctl.controller.agents.registry import Agent, AgentRegistry, Registration
from trainctl.controller.agents.session import AgentSession
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
from trainctl.controller.rpc.log_relay import LogRelay
from trainctl.controller.steady_clock import SteadyClock
from trainctl.controller.tasks import to_the_end
from trainctl.core.codec import from_wire
from trainctl.core.errors import FencedError, NotFoundError, UsageError
from trainctl.core.records.step import StepFigures
from trainctl.core.records.worker import CheckpointReport, RecoveryReport, WorkerObserved
from trainctl.core.timeouts import Timeouts
from trainctl.protos.convert import message_to_dict, message_to_record
from trainctl.protos.v1 import agent_pb2, agent_pb2_grpc
from trainctl.protos.version import WIRE_VERSION, package_version

_log = logging.getLogger(__name__)
MAX_SLOTS = 1024
HEARTBEAT_S = Timeouts.for_profile("fast").heartbeat_s
"""One beat for all: an agent may serve jobs of any profile."""
ORPHAN_TIMEOUT_S = Timeouts.for_profile("balanced").orphan_s
Context = Any


DOUBT_HINT = (
    "the store was restored from an old copy: restore a newer one, or start the controller once with --accept-store"
)


class StaleEpochError(FencedError):
    """The agent has seen a newer leader than this one."""

    code = "STALE_EPOCH"


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
    ) -> None:
        self._book = book
        self._agents = agents
        self._reconciler = reconciler
        self._leadership = leadership
        self._logs = logs
        self._clock = clock
        self._metrics = metrics

    async def Register(self, request: agent_pb2.RegisterRequest, context: Context) -> agent_pb2.RegisterResponse:  # noqa: N802
        """Begins an agent's life; its incarnation is the revision of the transaction that records it."""
        if not request.node or not 0 < request.slots <= MAX_SLOTS:
            raise UsageError(
                f"expected a node name and 1 to {MAX_SLOTS} slots, found {request.node!r}, {request.slots}"
            )
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
            heartbeat_s=HEARTBEAT_S,
            orphan_timeout_s=ORPHAN_TIMEOUT_S,
        )

    async def Session(  # noqa: N802
        self, requests: Any, context: Context
    ) -> AsyncIterator[agent_pb2.SessionResponse]:
        """The stream: reads until the agent ends it, writes whatever is due."""
        messages = aiter(requests)
        first = await anext(messages, None)
        if first is None or first.WhichOneof("message") != "hello":
            raise UsageError("the first message of a session must be AgentHello")
        hello = first.hello
        if hello.epoch > self._leadership.epoch:
            doubt = (
                f"agent of {hello.node} has obeyed a leader of epoch {hello.epoch}, this controller has "
                f"{self._leadership.epoch}: its store is older than what the agent has seen"
            )
            self._agents.doubt = doubt
            raise StaleEpochError(doubt, hint=DOUBT_HINT)
        desired = self._desired(hello.agent_incarnation)
        agent, session = self._agents.open(hello.node, hello.agent_incarnation, desired)
        self._logs.session_opened(session)
        self._count_sessions()
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
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await reading
            self._agents.close(agent, session)
            self._logs.session_closed(session)
            self._count_sessions()
            self._reconciler.look_at_jobs_on(agent.incarnation)

    def _desired(self, incarnation: int) -> Callable[[], agent_pb2.AgentDesired]:
        return lambda: self._reconciler.desired(incarnation)

    async def _read(self, messages: Any, agent: Agent, session: AgentSession) -> None:
        async for message in messages:
            self._agents.heard(agent)
            await self._take(message, agent, session)

    async def _take(self, message: agent_pb2.SessionRequest, agent: Agent, session: AgentSession) -> None:
        kind = message.WhichOneof("message")
        if kind == "observed":
            self._observed(message.observed, agent, session)
        elif kind == "figures":
            await self._figures(message.figures, session)
        elif kind == "checkpoint":
            report = message_to_record(message.checkpoint, CheckpointReport)
            await self._apply(report.job_uid, lambda s: observe_checkpoint(s, report, self._clock.now_s()))
            session.took_report()
        elif kind == "recovery":
            recovery = message_to_record(message.recovery, RecoveryReport)
            await self._apply(recovery.job_uid, lambda s: observe_recovery(s, recovery, self._clock.now_s()))
            session.took_report()
        elif kind == "log_chunk":
            self._logs.chunk(session, message.log_chunk)
        elif kind == "goodbye":
            _log.info("agent of %s says goodbye: %s", session.node, message.goodbye.reason)

    def _observed(self, observed: agent_pb2.AgentObserved, agent: Agent, session: AgentSession) -> None:
        workers = tuple(message_to_record(worker, WorkerObserved) for worker in observed.workers)
        self._agents.observed(agent, store_address=observed.store_address, workers=workers)
        self._metrics.inc("trainctl_heartbeats_total")
        session.took_observation(observed.sequence)
        self._reconciler.look_at_jobs_on(agent.incarnation)

    async def _figures(self, batch: agent_pb2.FiguresBatch, session: AgentSession) -> None:
        """File first, then the job's progress, then the acknowledgement: a crash in between repeats, and loses none."""
        figures = [message_to_record(one, StepFigures) for one in batch.figures]
        try:
            entry = self._book.entry(batch.job_uid)
        except NotFoundError:
            session.took_figures(batch.sequence)
            return
        fresh = entry.figures.add(figures)
        for one in fresh:
            self._metrics.observe("trainctl_job_step_seconds", one.step_s, job_name=entry.state.name)
        if fresh:
            await self._apply(batch.job_uid, lambda s: observe_figures(s, fresh, self._clock.now_s()))
        session.took_figures(batch.sequence)

    async def _apply(self, uid: str, decide: Callable[[JobState], Reconciliation]) -> None:
        try:
            await self._book.apply(uid, decide)
        except NotFoundError:
            _log.warning("an agent reported on job %s, which is not known here", uid)

    def _count_sessions(self) -> None:
        self._metrics.set("trainctl_agent_sessions", len(self._agents.sessions()))
