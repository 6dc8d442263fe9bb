"""The bridge between an agent and one of its workers: JSON lines over a socket pair.

The agent sends ``Instruct``, always the whole truth; the worker answers with the other messages. Two small threads of
the worker do the talking, so the one that trains never waits for the socket: one keeps the newest instruction and runs
callbacks, one writes what ``send`` queued. When the socket ends the agent is gone, and the worker ends at once: nobody
would supervise it.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import get_args

from trainctl.core.codec import WireError, from_wire, to_wire
from trainctl.core.records.snapshot import SnapshotsMade
from trainctl.core.records.step import StepFigures, StepReport
from trainctl.core.records.worker import CheckpointReport, RecoveryReport, WorkerDesired, WorkerError

ORPHANED_EXIT_CODE = 71
"""What a worker exits with when its agent is gone."""
MAX_LINE_BYTES = 16 * 1024 * 1024
MAX_QUEUED_FIGURES = 4096
"""Figures messages that wait for a slow agent before the oldest are dropped."""


@dataclass(frozen=True, slots=True)
class Instruct:
    """Agent to worker: what the controller wants of it now."""

    desired: WorkerDesired


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker can answer a PREPARE. ``steps`` of the run, 0: not counted."""

    steps: int = 0


@dataclass(frozen=True, slots=True)
class Reported:
    """The worker stopped for ``report.prepared_generation`` and says what it holds."""

    report: StepReport


@dataclass(frozen=True, slots=True)
class Running:
    """The worker carried out the record of ``generation`` and trains."""

    generation: int


@dataclass(frozen=True, slots=True)
class Figures:
    """Committed steps, oldest first."""

    figures: tuple[StepFigures, ...]


@dataclass(frozen=True, slots=True)
class Checkpointed:
    """A checkpoint is complete, or its attempt failed."""

    report: CheckpointReport


@dataclass(frozen=True, slots=True)
class Recovered:
    """How this worker entered a generation."""

    report: RecoveryReport


@dataclass(frozen=True, slots=True)
class Noticed:
    """Something that people should know of although the worker goes on: a hook that does not work, for example."""

    text: str


@dataclass(frozen=True, slots=True)
class Snapshotted:
    """This worker completes snapshots on its node; how far that is in its generation."""

    snapshots: SnapshotsMade


@dataclass(frozen=True, slots=True)
class Failed:
    """The exception that is about to end this worker."""

    error: WorkerError


@dataclass(frozen=True, slots=True)
class Finished:
    """The job's last step is applied (and saved); the worker ends by itself with exit code 0."""

    step: int


WorkerMessage = (
    Ready | Reported | Running | Figures | Checkpointed | Recovered | Noticed | Snapshotted | Failed | Finished
)
Message = Instruct | WorkerMessage

_TYPES: Mapping[str, type[Message]] = {cls.__name__: cls for cls in (Instruct, *get_args(WorkerMessage))}


def encode(message: Message) -> bytes:
    """One line, newline included."""
    data = {"type": type(message).__name__, "body": to_wire(message)}
    text = json.dumps(data, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return text.encode(errors="replace") + b"\n"  # an error may name a file whose name is no Unicode


def decode(line: bytes) -> Message:
    """Reads what ``encode`` made.

    Raises:
        WireError: it is not JSON, of an unknown type, or does not have the message's shape.
    """
    try:
        data = json.loads(line)
        cls = _TYPES[data["type"]]
        body = data["body"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise WireError(f"bridge: not a message: {line[:80]!r} ({type(error).__name__}: {error})") from error
    return from_wire(cls, body)


class MessageReader:
    """Cuts a byte stream into messages."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Message]:
        """The messages that ``data`` completes.

        Raises:
            WireError: a line is broken, or longer than ``MAX_LINE_BYTES``.
        """
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_LINE_BYTES:
            raise WireError(f"bridge: a line is longer than {MAX_LINE_BYTES} bytes")
        return [decode(line) for line in lines]


class WorkerBridge:
    """The worker's end of the bridge; use it from any thread.

    Args:
        fd: the worker's end of the socket pair; owned by the bridge from now on.
        on_eof: called on the reading thread when the agent is gone; by default it ends this process.
    """

    def __init__(self, fd: int, *, on_eof: Callable[[], None] | None = None) -> None:
        self._socket = socket.socket(fileno=fd)
        self._on_eof = on_eof or _end_orphan
        self._lock = threading.Condition()
        self._latest: WorkerDesired | None = None
        self._version = 0
        self._callbacks: list[Callable[[WorkerDesired], None]] = []
        self._queue: deque[WorkerMessage] = deque()
        self._queued_figures = 0
        self._unsent = 0
        self._closed = False
        self._threads = [
            threading.Thread(target=target, name=f"bridge{target.__name__}", daemon=True)
            for target in (self._read, self._write)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def version(self) -> int:
        """How many different instructions arrived; 0 before the first. Read it *before* ``latest`` to miss none."""
        return self._version

    def latest(self) -> WorkerDesired:
        """The newest instruction. Waits for the first one, which an agent sends before the worker is started.

        Raises:
            InterruptedError: the bridge was closed, or the agent left, before there was one.
        """
        with self._lock:
            self._lock.wait_for(lambda: self._latest is not None or self._closed)
            if self._latest is None:
                raise InterruptedError("bridge: ended before the first instruction")
            return self._latest

    def wait_newer(self, than: int, timeout_s: float) -> WorkerDesired | None:
        """The newest instruction as soon as ``version > than``; None after ``timeout_s`` or when the bridge ended."""
        with self._lock:
            self._lock.wait_for(lambda: self._version > than or self._closed, timeout_s)
            return self._latest if self._version > than else None

    def on_change(self, callback: Callable[[WorkerDesired], None]) -> None:
        """Runs ``callback`` for each new instruction on the reading thread, and once now if there is one already.

        It must be quick and must not raise, such as setting an abort flag.
        """
        with self._lock:
            self._callbacks.append(callback)
            latest = self._latest
        if latest is not None:
            callback(latest)

    def send(self, message: WorkerMessage) -> None:
        """Queues a message; never waits. Of figures that a slow agent leaves waiting, the oldest are dropped."""
        with self._lock:
            self._queue.append(message)
            self._unsent += 1
            if isinstance(message, Figures):
                self._queued_figures += 1
                if self._queued_figures > MAX_QUEUED_FIGURES:
                    self._drop_oldest_figures()
            self._lock.notify_all()

    def flush(self, timeout_s: float) -> bool:
        """Waits until all that was sent is in the socket, as before an exit; False if that took too long."""
        with self._lock:
            self._lock.wait_for(lambda: self._unsent == 0 or self._closed, timeout_s)
            return self._unsent == 0

    def close(self) -> None:
        """Ends both threads; what was not flushed is lost. Not to be called from a callback."""
        with self._lock:
            self._closed = True
            self._lock.notify_all()
        with contextlib.suppress(OSError):  # the other end may have left first
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes both threads; a mere close would leave them in the kernel
        for thread in self._threads:
            thread.join()
        self._socket.close()

    def _drop_oldest_figures(self) -> None:
        oldest = next(item for item in self._queue if isinstance(item, Figures))
        self._queue.remove(oldest)
        self._queued_figures -= 1
        self._unsent -= 1

    def _read(self) -> None:
        try:
            self._read_to_end()
        except Exception:  # a broken message or callback: a worker that cannot hear its agent must not go on
            traceback.print_exc()
        with self._lock:
            was_closed, self._closed = self._closed, True
            self._lock.notify_all()
        if not was_closed:
            self._on_eof()

    def _read_to_end(self) -> None:
        reader = MessageReader()
        while data := self._receive():
            for message in reader.feed(data):
                if isinstance(message, Instruct):
                    self._accept(message.desired)

    def _receive(self) -> bytes:
        try:
            return self._socket.recv(65536)
        except OSError:
            return b""

    def _accept(self, desired: WorkerDesired) -> None:
        with self._lock:
            if desired == self._latest:
                return
            self._latest = desired
            self._version += 1
            callbacks = tuple(self._callbacks)
            self._lock.notify_all()
        for callback in callbacks:
            callback(desired)

    def _write(self) -> None:
        while True:
            with self._lock:
                self._lock.wait_for(lambda: self._queue or self._closed)
                if self._closed:
                    return
                message = self._queue.popleft()
                self._queued_figures -= isinstance(message, Figures)
            try:
                self._socket.sendall(encode(message))
            except OSError:
                return  # the reader sees the end of the socket, too, and acts on it
            with self._lock:
                self._unsent -= 1
                self._lock.notify_all()


def _end_orphan() -> None:
    os.write(2, b"worker: its agent is gone, so it ends\n")
    os._exit(ORPHANED_EXIT_CODE)
