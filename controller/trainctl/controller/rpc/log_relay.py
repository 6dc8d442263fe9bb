"""Log lines on their way from agents to readers: asked for on the session streams, kept in bounded queues."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from random import Random

from trainctl.controller.agents.registry import AgentRegistry
from trainctl.controller.agents.session import AgentSession
from trainctl.protos.v1 import agent_pb2, job_pb2

MAX_WAITING = 2000
"""Chunks that wait for one reader; a slower one loses the oldest, which the numbers of the next ones tell."""


Life = tuple[int, int]
"""Slot and incarnation: one life of a worker has one log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogQuery:
    """What a reader wants; the fields are those of ``StreamLogsRequest``."""

    job_uid: str
    slots: tuple[int, ...] = ()
    incarnation: int = 0
    tail_lines: int = 0
    since_s: float = 0.0
    follow: bool = False


@dataclass(slots=True)
class LogReader:
    """One reader's queue, and how far it has got: lines have numbers, so a broken stream loses none and repeats none.

    Attributes:
        request_id: names the request on the session streams.
        query: what it wants.
        positions: number of the last line taken in, by log.
        begun: nodes that have said where their logs begin.
        open_at: streams of agents that have not sent their last chunk.
    """

    request_id: str
    query: LogQuery
    positions: dict[Life, int]
    begun: set[str]
    open_at: set[AgentSession] = field(default_factory=set[AgentSession])
    _waiting: deque[job_pb2.StreamLogsResponse] = field(default_factory=deque[job_pb2.StreamLogsResponse])
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, node: str, chunk: agent_pb2.LogChunk) -> None:
        """Takes in what an agent sent."""
        if chunk.begun:
            self.begun.add(node)
            for start in chunk.starts:
                life = (start.slot, start.incarnation)
                self.positions[life] = max(self.positions.get(life, 0), start.line)
            self._put(job_pb2.StreamLogsResponse(node=node, starts=chunk.starts, begun=True))
        lines, first = list(chunk.lines), chunk.first_line
        if first:
            life = (chunk.slot, chunk.incarnation)
            # Of a stream that broke, some lines may come in although they were asked for again.
            known = max(self.positions.get(life, 0) - first + 1, 0)
            lines, first = lines[known:], first + known
            self.positions[life] = max(self.positions.get(life, 0), first + len(lines) - 1)
        if lines:
            self._put(
                job_pb2.StreamLogsResponse(
                    slot=chunk.slot, incarnation=chunk.incarnation, node=node, lines=lines, first_line=first
                )
            )

    def _put(self, chunk: job_pb2.StreamLogsResponse) -> None:
        if len(self._waiting) >= MAX_WAITING:
            self._waiting.popleft()
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
        return self._waiting.popleft() if self._waiting else None


class LogRelay:
    """All readers.

    Args:
        agents: whose streams are asked.
        chance: makes the names of requests.
    """

    def __init__(self, agents: AgentRegistry, chance: Random) -> None:
        self._agents = agents
        self._chance = chance
        self._readers: dict[str, LogReader] = {}

    def open(self, query: LogQuery, positions: Mapping[Life, int], begun: Iterable[str]) -> LogReader:
        """Asks every connected agent; ended workers' logs lie with the agents, too.

        Args:
            query: what to ask for.
            positions: last line that the reader has, by log.
            begun: nodes whose logs the reader has begun to read.
        """
        reader = LogReader(self._chance.randbytes(8).hex(), query, dict(positions), set(begun))
        self._readers[reader.request_id] = reader
        for session in self._agents.sessions():
            self._ask(reader, session)
        return reader

    def close(self, reader: LogReader) -> None:
        """Nobody reads any more: the agents stop sending."""
        del self._readers[reader.request_id]
        for session in self._agents.sessions():
            if session in reader.open_at:
                session.request_logs(agent_pb2.LogRequest(request_id=reader.request_id, cancel=True))

    def session_opened(self, session: AgentSession) -> None:
        """Readers that follow also get what this agent will have."""
        for reader in self._readers.values():
            if reader.query.follow:
                self._ask(reader, session)

    def session_closed(self, session: AgentSession) -> None:
        """Nothing more comes from this stream; a reader that does not wait for the agent's return is told."""
        for reader in self._readers.values():
            if session in reader.open_at and not reader.query.follow:
                reader.take(session.node, agent_pb2.LogChunk(lines=[f"[{session.node} left before it had sent all]"]))
            reader.open_at.discard(session)
            reader.wake()

    def chunk(self, session: AgentSession, chunk: agent_pb2.LogChunk) -> None:
        """A chunk came from an agent; of a stream that counts as closed, the next one sends it again."""
        reader = self._readers.get(chunk.request_id)
        if reader is None or session not in reader.open_at:
            return
        reader.take(session.node, chunk)
        if chunk.end:
            reader.open_at.discard(session)
            reader.wake()

    def job_of(self, request_id: str) -> str:
        """Uid of the job that a request is about; empty if nobody reads any more."""
        reader = self._readers.get(request_id)
        return reader.query.job_uid if reader is not None else ""

    @staticmethod
    def _ask(reader: LogReader, session: AgentSession) -> None:
        reader.open_at.add(session)
        query = reader.query
        request = agent_pb2.LogRequest(
            request_id=reader.request_id,
            job_uid=query.job_uid,
            slots=query.slots,
            incarnation=query.incarnation,
            tail_lines=query.tail_lines,
            since_s=query.since_s,
            follow=query.follow,
            resumed=session.node in reader.begun,
        )
        for (slot, incarnation), line in reader.positions.items():
            request.positions.add(slot=slot, incarnation=incarnation, line=line)
        session.request_logs(request)
