"""Answers to the controller's log requests, in pieces that the stream takes when it has nothing better to do."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from trainctl.agent.logs.files import LogLine
from trainctl.agent.logs.query import Life, LogAnswer, LogQuery
from trainctl.agent.logs.store import LogStore, time_stamp
from trainctl.protos.v1 import agent_pb2

MAX_CHUNK_LINES = 200
MAX_CHUNK_CHARACTERS = 64 * 1024
MAX_WAITING_LINES = 10_000


class LogStream:
    """One request. Of the lines that a slow reader leaves waiting, the oldest are dropped: their numbers say so."""

    def __init__(self, request: agent_pb2.LogRequest, logs: LogStore, wake: Callable[[], None]) -> None:
        self._request = request
        self._query = query_of(request)
        self._logs = logs
        self._wake = wake
        self._starts: Mapping[Life, int] | None = None
        self._waiting: deque[LogLine] = deque()
        self._bound = MAX_WAITING_LINES
        self._complete = False
        self.ended = False
        logs.read(self._query, self._begin)

    def close(self) -> None:
        """Nobody reads any more."""
        self.ended = True
        self._logs.unfollow(self._follow)

    def take(self) -> agent_pb2.LogChunk | None:
        """The next piece, lines of one worker without a gap; None if there is none now.

        The first one says where the logs begin, the last one that it is the last.
        """
        chunk = agent_pb2.LogChunk(request_id=self._request.request_id)
        if self._starts is not None:
            chunk.begun = True
            for (slot, incarnation), number in self._starts.items():
                chunk.starts.add(slot=slot, incarnation=incarnation, line=number)
            self._starts = None
            return chunk
        if not self._waiting:
            if not self._complete or self.ended:
                return None
            self.close()
            chunk.end = True
            return chunk
        first = self._waiting[0]
        chunk.slot, chunk.incarnation, chunk.first_line = first.slot, first.incarnation, first.number
        room = MAX_CHUNK_CHARACTERS
        while self._waiting and room > 0 and len(chunk.lines) < MAX_CHUNK_LINES:
            line = self._waiting[0]
            expected = first.number + len(chunk.lines) if first.number else 0
            if (line.slot, line.incarnation, line.number) != (first.slot, first.incarnation, expected):
                break
            chunk.lines.append(line.text)
            room -= len(line.text)
            self._waiting.popleft()
        return chunk

    def _begin(self, found: LogAnswer) -> None:
        if self.ended:
            return
        self._starts = found.starts
        self._waiting.extend(found.lines)
        self._bound += len(found.lines)
        if self._request.follow:
            self._logs.follow(self._follow)
        else:
            self._complete = True
        self._wake()

    def _follow(self, job_uid: str, lines: Sequence[LogLine]) -> None:
        if job_uid != self._query.job_uid:
            return
        self._waiting.extend(line for line in lines if self._query.wants((line.slot, line.incarnation)))
        while len(self._waiting) > self._bound:
            self._waiting.popleft()
        self._wake()


def query_of(request: agent_pb2.LogRequest) -> LogQuery:
    """The request as the files understand it."""
    since = datetime.fromtimestamp(request.since_s, UTC) if request.since_s > 0 else None
    return LogQuery(
        job_uid=request.job_uid,
        slots=frozenset(request.slots),
        incarnation=request.incarnation,
        lines=request.tail_lines,
        since=time_stamp(since) if since is not None else "",
        positions={(p.slot, p.incarnation): p.line for p in request.positions},
        resumed=request.resumed,
    )


class LogStreams:
    """All open requests of one connection.

    Args:
        logs: where the lines come from.
        wake: called when ``take`` may have something.
    """

    def __init__(self, logs: LogStore, wake: Callable[[], None]) -> None:
        self._logs = logs
        self._wake = wake
        self._streams: dict[str, LogStream] = {}

    def handle(self, request: agent_pb2.LogRequest) -> None:
        """Opens a stream, or cancels the one with this id."""
        former = self._streams.pop(request.request_id, None)
        if former is not None:
            former.close()
        if not request.cancel:
            self._streams[request.request_id] = LogStream(request, self._logs, self._wake)

    def take(self) -> agent_pb2.LogChunk | None:
        """The next piece of any stream, each in its turn; None if there is none now."""
        for request_id, stream in tuple(self._streams.items()):
            chunk = stream.take()
            if chunk is not None:
                del self._streams[request_id]
                if not stream.ended:
                    self._streams[request_id] = stream  # to the end of the line
                return chunk
        return None

    def clear(self) -> None:
        """The connection ended, and with it all requests."""
        for stream in self._streams.values():
            stream.close()
        self._streams.clear()
