"""The agent's one connection to the controller: registers once, then keeps a stream open, for ever trying again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import grpc

from trainctl.agent.backoff import Backoff
from trainctl.agent.instructions import Instructions
from trainctl.agent.logs.streams import LogStreams
from trainctl.agent.metrics import AgentMetrics
from trainctl.agent.outbox import FiguresOutbox, ReportsOutbox
from trainctl.agent.patience import Patience
from trainctl.agent.security.calling import Calling
from trainctl.core.errors import TrainctlError, UnavailableError
from trainctl.core.records.worker import CheckpointReport, WorkerDesired, WorkerObserved
from trainctl.protos.convert import record_to_message
from trainctl.protos.status import error_from_rpc, is_from_server
from trainctl.protos.v1 import agent_pb2, agent_pb2_grpc, records_pb2

_LOG = logging.getLogger(__name__)
_SessionCall: TypeAlias = "grpc.aio.StreamStreamCall[agent_pb2.SessionRequest, agent_pb2.SessionResponse]"
_COALESCE_S = 0.005
_NEXT_TARGET_S = 0.02
"""Before the next of several controllers is tried."""
_REGISTER_TIMEOUT_S = 10.0
_NOBODY_ANSWERED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
DEFAULT_ORPHAN_TIMEOUT_S = 1800.0
"""Before a controller has said otherwise."""
FATAL_CODES = frozenset(
    {
        *("VERSION_MISMATCH", "UNAUTHENTICATED", "PERMISSION_DENIED", "INVALID_ARGUMENT", "USAGE"),
        *("JOIN_REFUSED", "JOIN_TOKEN_NEEDED", "CERTIFICATE_REQUEST_INVALID", "FAILED_PRECONDITION", "TLS_OFF"),
    }
)
"""Reasons that make another try of a first registration pointless."""
STALE_CODE = "STALE_INCARNATION"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """What the link asks of the rest of the agent.

    Attributes:
        observe: all workers.
        store_address: of the collective store, empty while there is none.
        set_desired: takes the whole desired state.
        forget_jobs: removes what is kept of jobs that were deleted, by uid.
        forget_all: ends all workers and returns when none is left: this agent's life was declared over.
    """

    observe: Callable[[], tuple[WorkerObserved, ...]]
    store_address: Callable[[], str]
    set_desired: Callable[[Sequence[WorkerDesired]], None]
    forget_jobs: Callable[[Sequence[str]], None]
    forget_all: Callable[[], Awaitable[None]]


class ControllerLink:
    """Talks to the controller.

    Args:
        targets: ``host:port`` of each controller; the one that leads answers.
        calling: how.
        registration: what the agent says of itself.
        node: the rest of the agent.
        figures: step figures that wait for the controller.
        reports: reports that wait for the controller.
        streams: log requests that are being answered; see ``wake``.
        metrics: counts heartbeats and reconnects.
    """

    def __init__(
        self,
        *,
        targets: Sequence[str],
        calling: Calling,
        registration: agent_pb2.RegisterRequest,
        node: Node,
        figures: FiguresOutbox,
        reports: ReportsOutbox,
        metrics: AgentMetrics,
    ) -> None:
        self._targets = tuple(targets)
        self._turn = 0
        self._calling = calling
        self._misfits = 0
        self._registration = registration
        self._node = node
        self._instructions = Instructions()
        self._figures = figures
        self._reports = reports
        self._metrics = metrics
        self._streams: LogStreams | None = None
        self._wake = asyncio.Event()
        self._due = False
        self._coalescing = False
        self._goodbye = ""
        self._sequence = 0
        self._desired_version = 0
        self._incarnation = 0
        self._epoch = 0
        self._heartbeat_s = 1.0
        self._heard_at_s = self._answered_s = self._observed_s = time.monotonic()
        self._connected = False
        self._backoff = Backoff()
        self._patience = Patience()
        self.orphan_timeout_s = DEFAULT_ORPHAN_TIMEOUT_S

    def serve_logs(self, streams: LogStreams) -> None:
        """Answers log requests from ``streams``; without it they are ignored."""
        self._streams = streams

    def silent_s(self) -> float:
        """Seconds without a controller, since the last connection or the start; 0 while connected."""
        return 0.0 if self._connected else time.monotonic() - self._heard_at_s

    def changed(self) -> None:
        """There is news: an observation goes out in a few milliseconds, together with what else happens until then."""
        if not self._coalescing:
            self._coalescing = True
            asyncio.get_running_loop().call_later(_COALESCE_S, self._observation_due)

    def wake(self) -> None:
        """Figures, reports or log lines wait to be sent."""
        self._wake.set()

    def say_goodbye(self, reason: str) -> None:
        """Tells the controller that this agent ends."""
        self._goodbye = reason
        self._wake.set()

    async def run(self) -> None:
        """Runs until cancelled.

        Raises:
            TrainctlError: the first registration was refused for a reason that will not go away.
        """
        while True:
            try:
                async with self._calling.open(self._target) as stub:
                    if await self._talk(stub):
                        continue  # at once, with what is new
            except grpc.aio.AioRpcError as error:
                await self._judge(await self._explained(error))
            except TrainctlError as error:
                await self._judge(error)
            self._turn += 1
            everybody_asked = self._turn % len(self._targets) == 0
            if everybody_asked:
                self._patience.nobody_answered()
            await asyncio.sleep(self._backoff.next_s() if everybody_asked else _NEXT_TARGET_S)
            self._metrics.reconnects.inc()

    @property
    def _target(self) -> str:
        return self._targets[self._turn % len(self._targets)]

    async def _explained(self, error: grpc.aio.AioRpcError) -> TrainctlError:
        """The same in our words; where nobody answers at all, certificates may be why."""
        silent = error.code() in _NOBODY_ANSWERED and not is_from_server(error)
        found = await self._calling.why(self._target) if silent else None
        self._misfits = self._misfits + 1 if found is not None else 0
        return found or error_from_rpc(error)

    async def _talk(self, stub: agent_pb2_grpc.AgentServiceAsyncStub) -> bool:
        """Returns when the stream has ended; True if it shall be opened again at once."""
        metadata = self._calling.metadata()
        if not self._incarnation:
            await self._register(stub, metadata)
        call = stub.Session(metadata=metadata)
        hello = agent_pb2.AgentHello(
            node=self._registration.node, agent_incarnation=self._incarnation, epoch=self._epoch
        )
        self._figures.rewind()
        self._reports.rewind()
        self._due = True
        beat = asyncio.create_task(self._beat(call))
        handing_over = asyncio.create_task(self._hand_over(stub, call))
        tasks = [asyncio.create_task(self._write(call, hello)), beat, handing_over]
        try:
            async for response in call:
                self._connected = True  # a controller that froze is noticed by the channel's keep-alive
                self._handle(response)
        except asyncio.CancelledError:  # so gRPC says, too, that the call was cancelled
            if not (beat.done() or handing_over.done()) or _is_cancelled():
                raise
        finally:
            if self._connected:
                self._connected = False
                self._heard_at_s = time.monotonic()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            call.cancel()
            if self._streams is not None:
                self._streams.clear()
        return handing_over.done() and not handing_over.cancelled() and handing_over.exception() is None

    async def _hand_over(self, stub: agent_pb2_grpc.AgentServiceAsyncStub, call: _SessionCall) -> None:
        """Ends the stream when another connection is to take its place; the controller keeps this agent's life."""
        await self._calling.outdated(stub)
        _LOG.info("opening another connection with the renewed certificate")
        call.cancel()

    async def _register(
        self, stub: agent_pb2_grpc.AgentServiceAsyncStub, metadata: tuple[tuple[str, str], ...]
    ) -> None:
        reply = await stub.Register(self._registration, metadata=metadata, timeout=_REGISTER_TIMEOUT_S)
        self._incarnation = reply.agent_incarnation
        self._epoch = max(self._epoch, reply.epoch)
        self._heartbeat_s = reply.heartbeat_s or self._heartbeat_s
        self.orphan_timeout_s = reply.orphan_timeout_s or self.orphan_timeout_s
        self._heard_at_s = time.monotonic()
        _LOG.info("registered as incarnation %d (leader epoch %d)", self._incarnation, self._epoch)

    async def _judge(self, error: TrainctlError) -> None:
        """What an ended call means: try again, begin a new life, or give up."""
        if error.code == STALE_CODE:
            _LOG.error("the controller declared this agent's life over (%s): ending all workers", error)
            await self._node.forget_all()
            self._incarnation = 0
        elif not self._incarnation and (error.code in FATAL_CODES or self._misfits >= len(self._targets)):
            raise error
        else:  # workers train on meanwhile; if nobody comes, the orphan time-out ends it
            hint = f" ({error.hint})" if error.hint and error.code != "UNAVAILABLE" else ""
            _LOG.warning("no controller at %s: %s%s", self._target, error, hint)
            if isinstance(error, UnavailableError):
                self._backoff.wait_at_least(error.retry_after_s)

    def _observation_due(self) -> None:
        self._coalescing = False
        self._due = True
        self._wake.set()

    async def _beat(self, call: _SessionCall) -> None:
        """Observes when nothing else made it do so for a heartbeat: where a thousand agents have news, that is enough.

        Every heartbeat is answered; a leader that does not answer any more may be frozen, and another one lead.
        """
        self._answered_s = self._observed_s = time.monotonic()
        while True:
            limit_s = self._patience.limit_s(connected=self._connected, heartbeat_s=self._heartbeat_s)
            period_s = min(self._heartbeat_s, limit_s)
            await asyncio.sleep(max(0.0, self._observed_s + period_s - time.monotonic()))
            now_s = time.monotonic()
            silent_s = now_s - self._answered_s
            if len(self._targets) > 1 and silent_s >= limit_s:
                _LOG.warning("no answer from the controller at %s for %.1f s: asking others", self._target, silent_s)
                call.cancel()
                return
            if now_s >= self._observed_s + period_s:  # else there was something to say meanwhile
                self._observed_s = now_s
                self._observation_due()
                self._metrics.heartbeats.inc()

    async def _write(
        self,
        call: _SessionCall,
        hello: agent_pb2.AgentHello,
    ) -> None:
        message: agent_pb2.SessionRequest | None = agent_pb2.SessionRequest(hello=hello)
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # the reading side sees it as well
            while True:
                if message is None:
                    await self._wake.wait()
                else:
                    await call.write(message)
                self._wake.clear()
                message = self._next()

    def _next(self) -> agent_pb2.SessionRequest | None:
        """The most urgent message that waits; None if there is none."""
        if self._due:
            self._due = False
            return agent_pb2.SessionRequest(observed=self._observation())
        report = self._reports.take(self._sequence + 1)
        if report is not None:
            if isinstance(report, CheckpointReport):
                return agent_pb2.SessionRequest(checkpoint=record_to_message(report, records_pb2.CheckpointReport))
            return agent_pb2.SessionRequest(recovery=record_to_message(report, records_pb2.RecoveryReport))
        batch = self._figures.take()
        if batch is not None:
            figures = [record_to_message(item, records_pb2.StepFigures) for item in batch.figures]
            return agent_pb2.SessionRequest(
                figures=agent_pb2.FiguresBatch(job_uid=batch.job_uid, sequence=batch.sequence, figures=figures)
            )
        if self._goodbye:
            reason, self._goodbye = self._goodbye, ""
            return agent_pb2.SessionRequest(goodbye=agent_pb2.Goodbye(reason=reason))
        chunk = self._streams.take() if self._streams is not None else None
        return agent_pb2.SessionRequest(log_chunk=chunk) if chunk is not None else None

    def _observation(self) -> agent_pb2.AgentObserved:
        self._sequence += 1
        self._observed_s = time.monotonic()
        observed = self._instructions.noted(self._node.observe())
        workers = [record_to_message(worker, records_pb2.WorkerObserved) for worker in observed]
        return agent_pb2.AgentObserved(
            sequence=self._sequence,
            desired_version=self._desired_version,
            store_address=self._node.store_address(),
            workers=workers,
        )

    def _handle(self, response: agent_pb2.SessionResponse) -> None:
        self._answered_s = time.monotonic()
        self._patience.heard()
        kind = response.WhichOneof("message")
        if kind == "desired":
            self._take_desired(response.desired)
        elif kind == "ack":
            self._backoff.reset()  # a controller that cannot read what is said here acknowledges nothing
            self._figures.acknowledge(response.ack.figures_sequence)
            self._reports.acknowledge(response.ack.sequence)
        elif kind == "log_request" and self._streams is not None:
            self._streams.handle(response.log_request)

    def _take_desired(self, desired: agent_pb2.AgentDesired) -> None:
        if desired.epoch < self._epoch:
            _LOG.warning(
                "refused the instructions of a former leader (epoch %d): the leader of epoch %d was heard already",
                desired.epoch,
                self._epoch,
            )
            self._metrics.refused_desired.inc()
            return
        self._epoch = desired.epoch
        self._heartbeat_s = desired.heartbeat_s or self._heartbeat_s
        self._node.set_desired(self._instructions.read(desired.workers))
        self._node.forget_jobs(desired.deleted_jobs)
        self._desired_version = desired.version
        self.changed()


def _is_cancelled() -> bool:
    """Whether this very task is to end."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
