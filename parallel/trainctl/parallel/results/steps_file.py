"""``records/steps.jsonl``: one line a committed step, whatever happens to the worker that writes it."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from trainctl.checkpoint.storage.line_log import LineLog
from trainctl.checkpoint.storage.opening import open_storage
from trainctl.core.errors import TrainctlError
from trainctl.core.json_text import NoJsonError
from trainctl.core.records.lines import RollbackLine, StepLine
from trainctl.core.records.places import STEPS
from trainctl.core.records.step import StepFigures
from trainctl.parallel.results.delivered import START, Position, position_in
from trainctl.parallel.results.hook import Recorder, Recovery, Run, RunEnd

MAX_UNWRITTEN = 100_000
"""Lines that wait for a storage that refuses, before the oldest are given up."""
Line = StepLine | RollbackLine
_RETRY_S = 5.0
_REMOTE_EVERY_S = 5.0


@dataclass(frozen=True, slots=True)
class _Queued:
    """A step with its line, or None: the run stands at ``position`` after a recovery."""

    position: Position
    generation: int
    line: StepLine | None = None


class StepsFile(Recorder):
    """Writes ``StepLine`` and ``RollbackLine``; the file itself tells its next writer how far it came."""

    def __init__(self) -> None:
        self._log: LineLog | None = None
        self._records = ""
        self._written: Position = START
        self._queue: deque[_Queued] = deque()
        self._every_s = 0.0
        self._due_s = 0.0

    def on_start(self, run: Run) -> None:
        """Remembers where; the file is looked for when there is something to write."""
        self._records = run.records
        self._every_s = _REMOTE_EVERY_S if "://" in run.records else 0.0

    def on_step(self, figures: StepFigures) -> None:
        """Queues the step's line."""
        rate = figures.tokens / figures.step_s if figures.step_s > 0 else 0.0
        position = (figures.lineage, figures.step)
        self._add(_Queued(position, figures.generation, StepLine(figures, rate)))

    def on_recovery(self, recovery: Recovery) -> None:
        """Steps may have been taken back."""
        self._add(_Queued((recovery.lineage, recovery.step), recovery.generation))

    def on_end(self, end: RunEnd) -> None:
        """Writes what waits, even if the last try failed."""
        self.settle()

    def flush(self) -> None:
        """Writes what waits, if it is time for it."""
        if time.monotonic() >= self._due_s:
            self.settle()

    def settle(self) -> None:
        """Writes what waits, now; what the storage refuses stays for the next time."""
        if not self._queue:
            return
        try:
            self._write()
        except (OSError, TrainctlError) as error:
            self._log = None  # opened anew next time, since somebody else may have written to it
            self._due_s = time.monotonic() + _RETRY_S
            self.trouble = f"cannot write steps.jsonl in {self._records}, and will try again: {error}"
            return
        self._due_s = time.monotonic() + self._every_s
        self.trouble = ""

    def _add(self, queued: _Queued) -> None:
        if len(self._queue) >= MAX_UNWRITTEN:
            self._queue.popleft()
        self._queue.append(queued)

    def _write(self) -> None:
        if self._log is None:
            log = LineLog(open_storage(self._records), STEPS, ".jsonl")
            self._written = _newest(log.open())
            self._log = log
        lines, newest = _fresh(self._queue, self._written, now_s=time.time())
        if lines:
            self._log.append(b"".join(_encode(line) for line in lines))
        self._written = newest
        self._queue.clear()


def _fresh(queue: Iterable[_Queued], known: Position, *, now_s: float) -> tuple[list[Line], Position]:
    """The lines that a file whose newest position is ``known`` lacks, and its newest position with them."""
    fresh: list[Line] = []
    for queued in queue:
        if queued.position <= known:
            continue
        lineage, step = queued.position
        goes_on_after = step if queued.line is None else step - 1
        if lineage > known[0] and goes_on_after < known[1]:
            fresh.append(RollbackLine(lineage=lineage, step=goes_on_after, generation=queued.generation, wall_s=now_s))
            known = (lineage, goes_on_after)
        if queued.line is not None:
            fresh.append(queued.line)
            known = queued.position
    return fresh, known


def _encode(line: Line) -> bytes:
    return json.dumps(line.to_json(), separators=(",", ":")).encode() + b"\n"


def _newest(lines: bytes) -> Position:
    """Lineage and step of the newest readable line."""
    for line in reversed(lines.splitlines()):
        with suppress(NoJsonError):
            return position_in(line)
    return START
