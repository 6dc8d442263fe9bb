"""What waits at the agent for the controller: nothing in here is lost by a controller that is away for a while."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from trainctl.core.records.step import StepFigures
from trainctl.core.records.worker import CheckpointReport, RecoveryReport

MAX_FIGURES = 200_000
MAX_BATCH = 256
MAX_REPORTS = 1000

Report = CheckpointReport | RecoveryReport


@dataclass(slots=True)
class Batch:
    """Figures of one job that travel and are acknowledged together."""

    job_uid: str
    sequence: int
    figures: list[StepFigures]


class FiguresOutbox:
    """Figures in batches with rising sequence numbers, kept until acknowledged.

    Args:
        limit: figures kept; beyond it the oldest batch is dropped and counted.
    """

    def __init__(self, limit: int = MAX_FIGURES) -> None:
        self._limit = limit
        self._batches: deque[Batch] = deque()
        self._sequence = 0
        self._sent = 0
        self.pending = 0
        self.dropped = 0

    def add(self, job_uid: str, figures: Sequence[StepFigures]) -> None:
        """Appends figures; they join the newest batch where that was not sent yet."""
        for item in figures:
            newest = self._batches[-1] if self._batches else None
            if (
                newest is None
                or newest.sequence <= self._sent
                or newest.job_uid != job_uid
                or len(newest.figures) >= MAX_BATCH
            ):
                self._sequence += 1
                newest = Batch(job_uid, self._sequence, [])
                self._batches.append(newest)
            newest.figures.append(item)
        self.pending += len(figures)
        while self.pending > self._limit:
            lost = len(self._batches.popleft().figures)
            self.pending -= lost
            self.dropped += lost

    def take(self) -> Batch | None:
        """The oldest batch not sent on this connection, from now on sent; None if all are."""
        if not self._batches or self._batches[-1].sequence <= self._sent:
            return None
        index = max(0, self._sent + 1 - self._batches[0].sequence)  # sequence numbers have no holes
        batch = self._batches[index]
        self._sent = batch.sequence
        return batch

    def acknowledge(self, sequence: int) -> None:
        """The controller has everything up to ``sequence``."""
        while self._batches and self._batches[0].sequence <= min(sequence, self._sent):
            self.pending -= len(self._batches.popleft().figures)

    def rewind(self) -> None:
        """A new connection: what was not acknowledged is sent again."""
        self._sent = self._batches[0].sequence - 1 if self._batches else self._sequence


@dataclass(slots=True)
class _Posted:
    report: Report
    heard_s: float
    sent_before: int = 0

    def aged(self, now_s: float) -> Report:
        """The report with its age as of now."""
        if not isinstance(self.report, CheckpointReport):
            return self.report
        return replace(self.report, age_s=max(0.0, now_s - self.heard_s))


class ReportsOutbox:
    """Reports, each kept until an observation sent after it is acknowledged; sending one twice does no harm.

    Args:
        monotonic_s: the clock that ages are measured on.
    """

    def __init__(self, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._monotonic_s = monotonic_s
        self._reports: deque[_Posted] = deque(maxlen=MAX_REPORTS)

    def __len__(self) -> int:
        return len(self._reports)

    def add(self, report: Report) -> None:
        """Appends a report."""
        self._reports.append(_Posted(report, self._monotonic_s()))

    def take(self, next_observation: int) -> Report | None:
        """The oldest report not sent on this connection; ``next_observation`` is the sequence that will follow it."""
        for posted in self._reports:
            if not posted.sent_before:
                posted.sent_before = next_observation
                return posted.aged(self._monotonic_s())
        return None

    def acknowledge(self, observation: int) -> None:
        """The controller has the observation with this sequence, so it has the reports sent before it."""
        while self._reports and 0 < self._reports[0].sent_before <= observation:
            self._reports.popleft()

    def rewind(self) -> None:
        """A new connection: what was not acknowledged is sent again."""
        for posted in self._reports:
            posted.sent_before = 0
