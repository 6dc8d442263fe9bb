"""The agent's one connection to the controller: registers once, then keeps a stream open, for ever trying again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

import grpc

from trainctl.agent.conversation import COALESCE_S, Conversation, Node
from trainctl.agent.logs.streams import LogStreams
from trainctl.agent.metrics import AgentMetrics
from trainctl.agent.outbox import FiguresOutbox, ReportsOutbox
from trainctl.agent.security.calling import Calling
from trainctl.core.errors import TrainctlError
from trainctl.core.system.cancelling import heeding_cancellation
from trainctl.protos.status import error_from_rpc, is_from_server
from trainctl.protos.v1 import agent_pb2, agent_pb2_grpc

_LOG = logging.getLogger(__name__)
_SessionCall: TypeAlias = "grpc.aio.StreamStreamCall[agent_pb2.SessionRequest, agent_pb2.SessionResponse]"
_REGISTER_TIMEOUT_S = 10.0
_NOBODY_ANSWERED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


class ControllerLink:
    """Has a ``Conversation`` over gRPC, and answers log requests beside it.

    Args:
        targets: ``host:port`` of each controller; the one that leads answers.
        calling: how.
        registration: what the agent says of itself.
        node: the rest of the agent.
        forget_all: ends all workers and returns when none is left: this agent's life was declared over.
        figures: step figures that wait for the controller.
        reports: reports that wait for the controller.
        metrics: counts heartbeats and reconnects.
    """

    def __init__(
        self,
        *,
        targets: Sequence[str],
        calling: Calling,
        registration: agent_pb2.RegisterRequest,
        node: Node,
        forget_all: Callable[[], Awaitable[None]],
        figures: FiguresOutbox,
        reports: ReportsOutbox,
        metrics: AgentMetrics,
    ) -> None:
        self._conversation = Conversation(
            targets=targets,
            registration=registration,
            node=node,
            figures=figures,
            reports=reports,
            now_s=time.monotonic,
            on_refused=metrics.refused_desired.inc,
        )
        self._calling = calling
        self._misfits = 0
        self._forget_all = forget_all
        self._metrics = metrics
        self._streams: LogStreams | None = None
        self._wake = asyncio.Event()

    @property
    def orphan_timeout_s(self) -> float:
        """How long workers train on without a controller."""
        return self._conversation.orphan_timeout_s

    def serve_logs(self, streams: LogStreams) -> None:
        """Answers log requests from ``streams``; without it they are ignored."""
        self._streams = streams

    def silent_s(self) -> float:
        """See ``Conversation.silent_s``."""
        return self._conversation.silent_s()

    def changed(self) -> None:
        """There is news: an observation goes out in a few milliseconds, together with what else happens until then."""
        if self._conversation.changed():
            asyncio.get_running_loop().call_later(COALESCE_S, self._observe)

    def wake(self) -> None:
        """Figures, reports or log lines wait to be sent."""
        self._wake.set()

    def say_goodbye(self, reason: str) -> None:
        """Tells the controller that this agent ends."""
        self._conversation.say_goodbye(reason)
        self._wake.set()

    async def run(self) -> None:
        """Runs until cancelled.

        Raises:
            TrainctlError: the first registration was refused for a reason that will not go away.
        """
        while True:
            try:
                if await heeding_cancellation(self._connect()):
                    continue  # at once, with what is new
            except grpc.aio.AioRpcError as error:
                await self._judge(await self._explained(error))
            except TrainctlError as error:
                await self._judge(error)
            await asyncio.sleep(self._conversation.next_pause_s())
            self._metrics.reconnects.inc()

    async def _connect(self) -> bool:
        async with self._calling.open(self._conversation.target) as stub:
            return await self._talk(stub)

    async def _explained(self, error: grpc.aio.AioRpcError) -> TrainctlError:
        """The same in our words; where nobody answers at all, certificates may be why."""
        silent = error.code() in _NOBODY_ANSWERED and not is_from_server(error)
        found = await self._calling.why(self._conversation.target) if silent else None
        self._misfits = self._misfits + 1 if found is not None else 0
        return found or error_from_rpc(error)

    async def _judge(self, error: TrainctlError) -> None:
        if self._conversation.judge(error, misfits=self._misfits):
            await self._forget_all()

    async def _talk(self, stub: agent_pb2_grpc.AgentServiceAsyncStub) -> bool:
        """Returns when the stream has ended; True if it shall be opened again at once."""
        metadata = self._calling.metadata()
        if not self._conversation.incarnation:
            registration = self._conversation.registration
            reply = await stub.Register(registration, metadata=metadata, timeout=_REGISTER_TIMEOUT_S)
            self._conversation.registered(reply)
        call = stub.Session(metadata=metadata)
        hello = self._conversation.begin()
        beat = asyncio.create_task(self._beat(call))
        handing_over = asyncio.create_task(self._hand_over(stub, call))
        tasks = [asyncio.create_task(self._write(call, hello)), beat, handing_over]
        try:
            async for response in call:
                self._hear(response)
        except asyncio.CancelledError:  # so gRPC says, too, that the call was cancelled
            if not (beat.done() or handing_over.done()) or _is_cancelled():
                raise
        finally:
            self._conversation.end()
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

    async def _beat(self, call: _SessionCall) -> None:
        """Ends with the stream, which it cancels where the conversation gives it up."""
        while True:
            await asyncio.sleep(max(0.0, self._conversation.beat_at_s() - time.monotonic()))
            if self._conversation.gives_up():
                call.cancel()
                return
            if self._conversation.beat():
                self._wake.set()
                self._metrics.heartbeats.inc()

    async def _write(self, call: _SessionCall, hello: agent_pb2.SessionRequest) -> None:
        message: agent_pb2.SessionRequest | None = hello
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # the reading side sees it as well
            while True:
                if message is None:
                    await self._wake.wait()
                else:
                    await call.write(message)
                self._wake.clear()
                message = self._conversation.next_message() or self._log_chunk()

    def _log_chunk(self) -> agent_pb2.SessionRequest | None:
        chunk = self._streams.take() if self._streams is not None else None
        return agent_pb2.SessionRequest(log_chunk=chunk) if chunk is not None else None

    def _hear(self, response: agent_pb2.SessionResponse) -> None:
        if self._conversation.hear(response):
            self.changed()
        if response.WhichOneof("message") == "log_request" and self._streams is not None:
            self._streams.handle(response.log_request)

    def _observe(self) -> None:
        self._conversation.observe()
        self._wake.set()


def _is_cancelled() -> bool:
    """Whether this very task is to end."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
