"""What the controller holds of one job, and how others wait for news of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from trainctl.controller.domain.job_records import Condition
from trainctl.controller.domain.job_state import JobState
from trainctl.controller.domain.placement import slots_used
from trainctl.controller.jobs.figures import FigureLog
from trainctl.controller.jobs.journal import Journal
from trainctl.core.records.worker import WorkerDesired


class News:
    """Wakes everybody who waits; nobody misses what happened between looking and waiting."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def tell(self) -> None:
        """Something changed."""
        self._event.set()
        self._event = asyncio.Event()

    def next(self) -> asyncio.Event:
        """Take this before looking; it is set at the next change."""
        return self._event


@dataclass(slots=True)
class JobEntry:
    """One job.

    Attributes:
        state: as committed, with newer telemetry.
        revision: mod revision of the committed state.
        journal: its events.
        figures: its step figures.
        lock: held by whoever changes it.
        pending: the state of a transaction under way: its slots count as used, too.
        desired: workers by agent, of ``state``.
        told: what agents were last told to look at; differs from ``desired`` only during a change.
        trouble: why its reconcile does not work, if so.
        doubtful_until_s: until when a write without an answer may take effect after all; 0 if there is none.
        changed: told at every change.
    """

    state: JobState
    revision: int
    journal: Journal
    figures: FigureLog
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    pending: JobState | None = None
    desired: Mapping[int, tuple[WorkerDesired, ...]] = field(default_factory=dict)
    told: Mapping[int, tuple[WorkerDesired, ...]] = field(default_factory=dict)
    trouble: Condition | None = None
    doubtful_until_s: float = 0.0
    changed: News = field(default_factory=News)

    def slots_used(self, agent_incarnation: int) -> int:
        """Slots that it occupies on an agent, or may in a moment."""
        used = slots_used(self.state).get(agent_incarnation, 0)
        coming = slots_used(self.pending).get(agent_incarnation, 0) if self.pending is not None else 0
        return max(used, coming)
