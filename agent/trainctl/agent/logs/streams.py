"""Answers to the controller's log requests, in pieces that the stream takes when it has nothing better to do."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from trainctl.agent.logs.files import LogLine
from trainctl.agent.logs.store import LogStore
from trainctl.protos.v1 import agent_pb2

MAX_CHUNK_LINES = 200
MAX_CHUNK_CHARACTERS = 64 * 1024
MAX_WAITING_LINES = 10_000


class LogStream:
    """One request. Lines that a slow reader leaves waiting beyond the bound are dropped, and that is said."""

    def __init__(self, request: agent_pb2.LogRequest, logs: LogStore, wake: Callable[[], None]) -> None:
        self._request = request
        self._logs = logs
        self._wake = wake
        self._waiting: deque[LogLine] = deque()
        self._bound = MAX_WAITING_LINES
        self._complete = False
        self.ended = False
        logs.read(request.job_uid, slots=tuple(request.slots), lines=request.tail_lines, done=self._begin)

    def close(self) -> None:
        """Nobody reads any more."""
        self.ended = True
        self._logs.unfollow(self._follow)

    def take(self) -> agent_pb2.LogChunk | None:
        """The next piece, all lines of one worker; None if there is none now. The last one says so."""
        if not self._waiting:
            if not self._complete or self.ended:
                return None
            self.close()
            return agent_pb2.LogChunk(request_id=self._request.request_id, end=True)
        first = self._waiting[0]
        chunk = agent_pb2.LogChunk(request_id=self._request.request_id, slot=first.slot, incarnation=first.incarnation)
        room = MAX_CHUNK_CHARACTERS
        while self._waiting and room > 0 and len(chunk.lines) < MAX_CHUNK_LINES:
            line = self._waiting[0]
            if (line.slot, line.incarnation) != (first.slot, first.incarnation):
                break
            chunk.lines.append(line.text)
            room -= len(line.text)
            self._waiting.popleft()
        return chunk

    def _begin(self, lines: list[LogLine]) -> None:
        if self.ended:
            return
        self._waiting.extend(lines)
        self._bound += len(lines)
        if self._request.follow:
            self._logs.follow(self._follow)
        else:
            self._complete = True
        self._wake()

    def _follow(self, job_uid: str, lines: Sequence[LogLine]) -> None:
        if job_uid != self._request.job_uid:
            return
        slots = self._request.slots
        self._waiting.extend(line for line in lines if not slots or line.slot in slots)
        excess = len(self._waiting) - self._bound
        if excess > 0:
            for _ in range(excess):
                last = self._waiting.popleft()
            note = f"[{excess} lines left out: the reader is too slow]"
            self._waiting.appendleft(LogLine(slot=last.slot, incarnation=last.incarnation, text=note))
        self._wake()


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
