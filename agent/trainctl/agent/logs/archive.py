"""What workers print is also kept with their job's records, where it outlives this node."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from trainctl.agent.logs.files import LogLine
from trainctl.checkpoint.storage.line_log import LineLog
from trainctl.checkpoint.storage.opening import open_storage
from trainctl.core.codec import from_wire
from trainctl.core.errors import TrainctlError
from trainctl.core.records.places import LOGS, records_uri
from trainctl.core.records.spec import JobSpec
from trainctl.core.records.worker import WorkerDesired
from trainctl.core.system.deadline import Deadline

_LOG = logging.getLogger(__name__)
MAX_BYTES = 64 * 1024 * 1024
"""Kept of one worker's life: as much as on the node."""
PART_BYTES = 16 * 1024 * 1024
MAX_WAITING_CHARACTERS = 4 * 1024 * 1024
"""Of one worker's life that wait for a slow storage, before the oldest lines are left out."""
EVERY_S = 1.0
REMOTE_EVERY_S = 5.0
_RETRY_S = 5.0
_IDLE_S = 30.0
_CLOSE_S = 5.0

Life = tuple[int, int]
"""Slot and incarnation: one life of a worker has one log."""


class LogArchive:
    """Takes in the lines of all workers of this node; each job's are written by a thread of their own.

    Args:
        every_s: longest time that a line waits on a local folder.
    """

    def __init__(self, *, every_s: float = EVERY_S) -> None:
        self._every_s = every_s
        self._places: dict[str, str] = {}
        self._writers: dict[str, _JobWriter] = {}

    def know(self, desired: Sequence[WorkerDesired]) -> None:
        """Learns where the jobs of these workers keep their records."""
        for worker in desired:
            if worker.job_uid not in self._places:
                self._places[worker.job_uid] = _place(worker)

    def take(self, job_uid: str, lines: Sequence[LogLine]) -> None:
        """Queues lines; never waits. A ``store.Follower``."""
        place = self._places.get(job_uid, "")
        if not place or not lines:
            return
        writer = self._writers.get(job_uid)
        if writer is None or not writer.put(lines):
            every_s = REMOTE_EVERY_S if "://" in place else self._every_s
            self._writers[job_uid] = _JobWriter(place, every_s, lines)

    def forget(self, job_uids: Sequence[str]) -> None:
        """These jobs were deleted: what waits is not written any more, or it would bring their folders back."""
        for uid in job_uids:
            self._places[uid] = ""
            writer = self._writers.pop(uid, None)
            if writer is not None:
                writer.drop()

    def close(self) -> None:
        """Writes what waits, within a few seconds; blocks."""
        for writer in self._writers.values():
            writer.end()
        deadline = Deadline(_CLOSE_S)
        for writer in self._writers.values():
            writer.join(deadline.left_s)


@dataclass(slots=True)
class _Log:
    """One worker's life on its way to the storage."""

    file: LineLog | None = None
    waiting: deque[str] = field(default_factory=deque[str])
    characters: int = 0
    left_out: int = 0

    def put(self, text: str) -> None:
        self.waiting.append(text)
        self.characters += len(text) + 1
        while self.characters > MAX_WAITING_CHARACTERS:
            self.characters -= len(self.waiting.popleft()) + 1
            self.left_out += 1

    def take(self) -> list[str]:
        lines = list(self.waiting)
        if self.left_out:
            lines.insert(0, f"[{self.left_out} lines left out: the storage was too slow]")
        self.waiting.clear()
        self.characters = self.left_out = 0
        return lines

    def give_back(self, lines: Sequence[str]) -> None:
        later = list(self.waiting)
        self.waiting.clear()
        self.characters = 0
        for text in (*lines, *later):
            self.put(text)


class _JobWriter:
    """Writes one job's lines in a daemon thread, which ends when nothing came for a while."""

    def __init__(self, place: str, every_s: float, first: Sequence[LogLine]) -> None:
        self._place = place
        self._every_s = every_s
        self._changed = threading.Condition()
        self._logs: dict[Life, _Log] = {}
        self._ending = False
        self._over = False
        self._trouble = ""
        self._thread = threading.Thread(target=self._work, name="log-archive", daemon=True)
        self.put(first)
        self._thread.start()

    def put(self, lines: Sequence[LogLine]) -> bool:
        """Queues lines; False if the thread has ended."""
        with self._changed:
            if self._over:
                return False
            for line in lines:
                self._logs.setdefault((line.slot, line.incarnation), _Log()).put(line.text)
            self._changed.notify_all()
            return True

    def drop(self) -> None:
        """Ends without writing what waits."""
        with self._changed:
            self._logs.clear()
            self._ending = True
            self._changed.notify_all()

    def end(self) -> None:
        """Nothing more comes: writes at once."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()

    def join(self, timeout_s: float) -> None:
        """Waits for the thread after ``end``."""
        self._thread.join(timeout_s)

    def _work(self) -> None:
        pause_s = self._every_s
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ending or self._waits(), _IDLE_S)
                if not self._waits():
                    self._over = True
                    return
                self._changed.wait_for(lambda: self._ending, pause_s)
                taken = {life: log.take() for life, log in self._logs.items() if log.waiting}
                ending = self._ending
            refused = self._write(taken)
            pause_s = _RETRY_S if refused else self._every_s
            with self._changed:
                for life, lines in refused.items():
                    if life in self._logs:  # else it was dropped meanwhile
                        self._logs[life].give_back(lines)
                if ending:
                    self._over = True
                    return

    def _waits(self) -> bool:
        return any(log.waiting for log in self._logs.values())

    def _write(self, taken: Mapping[Life, list[str]]) -> dict[Life, list[str]]:
        """Appends to the files; returns what the storage refused."""
        refused: dict[Life, list[str]] = {}
        for life, lines in taken.items():
            log = self._logs.get(life)
            if log is None:
                continue
            try:
                if log.file is None:
                    log.file = self._open(life)
                log.file.append("".join(f"{line}\n" for line in lines).encode(errors="replace"))
            except (OSError, TrainctlError) as error:
                log.file = None
                refused[life] = lines
                self._say(str(error))
        if not refused:
            self._trouble = ""
        return refused

    def _open(self, life: Life) -> LineLog:
        storage = open_storage(self._place)
        part_bytes = min(PART_BYTES, storage.append_limit_bytes)
        file = LineLog(storage, f"{LOGS}/{life[0]}-{life[1]}", ".log", part_bytes=part_bytes, max_bytes=MAX_BYTES)
        file.open()
        return file

    def _say(self, trouble: str) -> None:
        if not self._trouble:
            _LOG.error("logs cannot be kept in %s, tried again later: %s", self._place, trouble)
        self._trouble = trouble


def _place(worker: WorkerDesired) -> str:
    """Where the job keeps its records; empty if it keeps no logs."""
    spec = worker.spec.get("spec")
    results = from_wire(JobSpec, spec).results if spec else None
    if results is None or not results.logs:
        return ""
    return records_uri(results, workdir=worker.workdir, job_uid=worker.job_uid)
