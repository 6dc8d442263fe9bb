"""The agent's door to the log files: one thread does the disk work, so a slow disk never delays a heartbeat."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

from trainctl.agent.logs.files import LogFile, LogLine, Written, log_path, remove_job
from trainctl.agent.logs.lines import LineSplitter
from trainctl.agent.logs.query import LogAnswer, LogQuery, answer
from trainctl.agent.state import WorkerKey

_LOG = logging.getLogger(__name__)
_PAUSE_AT_LINES = 1000
TAIL_LINES = 20

T = TypeVar("T")
Follower = Callable[[str, Sequence[LogLine]], None]


class LogStore:
    """Writes and reads the logs of all workers of this node.

    Args:
        root: folder of the logs.
        beside: other folders with one of each job in them, which goes when its logs do.
        make_file: opens one log; tests make small ones.
    """

    def __init__(
        self, root: Path, *, beside: Sequence[Path] = (), make_file: Callable[[Path], LogFile] = LogFile
    ) -> None:
        self._root = root
        self._beside = tuple(beside)
        self._make_file = make_file
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="logs")
        self._loop = asyncio.get_running_loop()
        self._followers: list[Follower] = []
        self._removed: set[str] = set()
        self.written_bytes = 0
        self.lost_lines = 0

    def capture(self, key: WorkerKey) -> LogCapture:
        """The protocol for the pipe of one worker."""
        return LogCapture(self, key, self._make_file(self.path_of(key)))

    def path_of(self, key: WorkerKey) -> Path:
        """The file that a worker's output goes to."""
        return log_path(self._root, key.job_uid, key.slot, key.incarnation)

    def append(self, key: WorkerKey, file: LogFile, lines: Sequence[str], done: Callable[[], None]) -> None:
        """Writes lines, hands them to the followers, then calls ``done``."""

        def finish(written: Written | None) -> None:
            self.written_bytes += written.size_bytes if written is not None else 0
            found = [
                LogLine(slot=key.slot, incarnation=key.incarnation, text=text, number=number)
                for number, text in _numbered(written, lines)
            ]
            for follower in self._followers:
                follower(key.job_uid, found)
            done()

        self._submit(lambda: self._write(file, lines), finish)

    def read(self, query: LogQuery, done: Callable[[LogAnswer], None]) -> None:
        """Calls ``done`` with the lines that are asked for.

        A follower added in ``done`` gets exactly the lines behind those: appending and reading share one thread, and
        what they find is handed over in that order.
        """
        self._submit(lambda: self._read(query), done)

    def remove(self, job_uids: Sequence[str]) -> None:
        """Removes all that is kept of jobs that were deleted, each once; by then their workers are gone."""
        for job_uid in job_uids:
            if job_uid not in self._removed:
                self._removed.add(job_uid)
                self._submit(partial(self._remove, job_uid), lambda _: None)

    def follow(self, follower: Follower) -> None:
        """Calls ``follower(job_uid, lines)`` for all that is appended from now on."""
        self._followers.append(follower)

    def unfollow(self, follower: Follower) -> None:
        """Ends ``follow``; nothing happens if it was none."""
        self._followers = [each for each in self._followers if each != follower]

    async def close(self) -> None:
        """Waits until everything is written."""
        await self._loop.run_in_executor(None, self._thread.shutdown)

    def _write(self, file: LogFile, lines: Sequence[str]) -> Written | None:
        try:
            return file.append(lines)
        except OSError as error:
            self.lost_lines += len(lines)
            _LOG.error("%d lines of the log %s are lost: %s", len(lines), file.path, error)
            return None

    def _read(self, query: LogQuery) -> LogAnswer:
        try:
            return answer(self._root, query)
        except OSError as error:
            note = LogLine(slot=0, incarnation=0, text=f"[the logs cannot be read: {error}]")
            return LogAnswer(starts={}, lines=(note,))

    def _remove(self, job_uid: str) -> None:
        try:
            for root in (self._root, *self._beside):
                remove_job(root, job_uid)
        except OSError as error:
            _LOG.error("logs of the deleted job %s stay: %s", job_uid, error)

    def _submit(self, work: Callable[[], T], done: Callable[[T], None]) -> None:
        def run() -> None:
            result = work()
            self._loop.call_soon_threadsafe(done, result)

        self._thread.submit(run)


def time_stamp(time: datetime) -> str:
    """What stands before each line: ``2026-01-31T12:00:00.123Z``; in this form the order of text is that of time."""
    return time.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def _numbered(written: Written | None, lines: Sequence[str]) -> Iterable[tuple[int, str]]:
    """The lines with their numbers in the file; 0 for those that the disk did not take."""
    return enumerate(lines, written.first_number) if written is not None else ((0, line) for line in lines)


class LogCapture(asyncio.Protocol):
    """Reads the output pipe of one worker. While the disk is behind, the pipe is not read, and the worker waits."""

    def __init__(self, store: LogStore, key: WorkerKey, file: LogFile) -> None:
        self._store = store
        self._key = key
        self._file = file
        self._splitter = LineSplitter()
        self._pending: list[str] = []
        self._writing = False
        self._paused = False
        self._transport: asyncio.ReadTransport | None = None
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self.ended = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of ``asyncio.Protocol``."""
        assert isinstance(transport, asyncio.ReadTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Part of ``asyncio.Protocol``."""
        self._take(self._splitter.feed(data))

    def connection_lost(self, exc: Exception | None) -> None:
        """Part of ``asyncio.Protocol``."""
        self._take(self._splitter.end())
        self.ended.set()

    def close(self) -> None:
        """Stops reading, whoever still holds the other end."""
        if self._transport is not None:
            self._transport.close()

    def _take(self, lines: list[str]) -> None:
        if not lines:
            return
        self.tail.extend(lines[-TAIL_LINES:])
        stamp = time_stamp(datetime.now(UTC))
        self._pending += [f"{stamp} {line}" for line in lines]
        if not self._writing:
            self._write()
        elif len(self._pending) > _PAUSE_AT_LINES and not self._paused and self._transport is not None:
            self._transport.pause_reading()
            self._paused = True

    def _write(self) -> None:
        lines, self._pending = self._pending, []
        self._writing = True
        self._store.append(self._key, self._file, lines, self._written)

    def _written(self) -> None:
        self._writing = False
        if self._paused and self._transport is not None:
            self._paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()
        if self._pending:
            self._write()
