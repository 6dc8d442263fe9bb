"""Log lines on their way from agents to readers: asked for on the session streams, kept in bounded queues."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from dataclasses import dataclass, field

from trainctl.controller.agents.registry import AgentRegistry
from trainctl.controller.agents.session import AgentSession
from trainctl.protos.v1 import agent_pb2, job_pb2

MAX_WAITING = 2000
"""Chunks that wait for one reader; a slower one loses the oldest, and is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogQuery:
    """What a reader wants."""

    job_uid: str
    slots: tuple[int, ...] = ()
    tail_lines: int = 0
    follow: bool = False


@dataclass(slots=True)
class LogReader:
    """One reader's queue.

    Attributes:
        request_id: names the request on the session streams.
        query: what it wants.
        open_at: agents that have not sent their last chunk.
        asked: agent lives asked so far.
    """

    request_id: str
    query: LogQuery
    open_at: set[int] = field(default_factory=set)
    asked: set[int] = field(default_factory=set)
    _waiting: deque[job_pb2.StreamLogsResponse] = field(default_factory=deque)
    _lost: int = 0
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, chunk: job_pb2.StreamLogsResponse) -> None:
        """Takes a chunk in; drops the oldest one if the reader is too slow."""
        if len(self._waiting) >= MAX_WAITING:
            self._lost += len(self._waiting.popleft().lines)
        self._waiting.append(chunk)
        self._wake.set()

    def wake(self) -> None:
        """Something other than a chunk happened."""
        self._wake.set()

    async def next(self, timeout_s: float) -> job_pb2.StreamLogsResponse | None:
        """The next chunk; None if there is none within ``timeout_s``, or an agent has just sent its last."""
        if not self._waiting:
            self._wake.clear()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._wake.wait()
            except TimeoutError:
                return None
        if not self._waiting:
            return None
        chunk = self._waiting.popleft()
        if self._lost:
            chunk.lines.insert(0, f"[{self._lost} lines left out: the reader is too slow]")
            self._lost = 0
        return chunk


class LogRelay:
    """All readers."""

    def __init__(self, agents: AgentRegistry) -> None:
        self._agents = agents
        self._readers: dict[str, LogReader] = {}

    def open(self, query: LogQuery) -> LogReader:
        """Asks every connected agent; ended workers' logs lie with the agents, too."""
        reader = LogReader(secrets.token_hex(8), query)
        self._readers[reader.request_id] = reader
        for session in self._agents.sessions():
            self._ask(reader, session)
        return reader

    def close(self, reader: LogReader) -> None:
        """Nobody reads any more: the agents stop sending."""
        del self._readers[reader.request_id]
        for session in self._agents.sessions():
            if session.agent_incarnation in reader.open_at:
                session.request_logs(agent_pb2.LogRequest(request_id=reader.request_id, cancel=True))

    def session_opened(self, session: AgentSession) -> None:
        """Readers that follow also get what this agent will have."""
        for reader in self._readers.values():
            if reader.query.follow:
                self._ask(reader, session)

    def session_closed(self, session: AgentSession) -> None:
        """Nothing more comes from this stream."""
        for reader in self._readers.values():
            reader.open_at.discard(session.agent_incarnation)
            reader.wake()

    def chunk(self, session: AgentSession, chunk: agent_pb2.LogChunk) -> None:
        """A chunk came from an agent."""
        reader = self._readers.get(chunk.request_id)
        if reader is None:
            return
        if chunk.lines:
            reader.put(
                job_pb2.StreamLogsResponse(
                    slot=chunk.slot, incarnation=chunk.incarnation, node=session.node, lines=chunk.lines
                )
            )
        if chunk.end:
            reader.open_at.discard(session.agent_incarnation)
            reader.wake()

    @staticmethod
    def _ask(reader: LogReader, session: AgentSession) -> None:
        # An agent that was asked before lost its stream: what it sent then is not wanted twice.
        again = session.agent_incarnation in reader.asked
        reader.asked.add(session.agent_incarnation)
        reader.open_at.add(session.agent_incarnation)
        query = reader.query
        session.request_logs(
            agent_pb2.LogRequest(
                request_id=reader.request_id,
                job_uid=query.job_uid,
                slots=query.slots,
                tail_lines=1 if again else query.tail_lines,
                follow=query.follow,
            )
        )
