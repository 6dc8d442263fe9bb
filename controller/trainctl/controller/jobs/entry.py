"""What the controller holds of one job, and how others wait for news of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from trainctl.controller.domain.job_records import Condition
from trainctl.controller.domain.job_state import JobState
from trainctl.controller.domain.placement import slots_used
from trainctl.controller.jobs.answers import Answers
from trainctl.controller.jobs.figures import FigureLog
from trainctl.controller.jobs.journal import Journal


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
        files: held by whoever writes or removes files of its records.
        pending: the state of a transaction under way: its slots count as used, too.
        unsure: states of transactions without an answer, which may take effect yet: so do theirs.
        trouble: why its reconcile does not work, if so.
        doubtful_until_s: until when a write without an answer may take effect after all; 0 if there is none.
        changed: told at every change.
        answers: of the agents, to what its workers were told.
    """

    state: JobState
    revision: int
    journal: Journal
    figures: FigureLog
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    files: asyncio.Lock = field(default_factory=asyncio.Lock)
    pending: JobState | None = None
    unsure: tuple[JobState, ...] = ()
    trouble: Condition | None = None
    doubtful_until_s: float = 0.0
    changed: News = field(default_factory=News)
    answers: Answers = field(default_factory=Answers)
    _counted: tuple[JobState, JobState | None, tuple[JobState, ...]] | None = None
    _uses: Mapping[int, int] = field(default_factory=dict[int, int])
    _waits: bool = False

    def uses(self) -> Mapping[int, int]:
        """Slots that it occupies on each agent (by incarnation), or may in a moment. Counted once a state."""
        self._count()
        return self._uses

    @property
    def waits_for_room(self) -> bool:
        """Whether a slot of it has no place."""
        self._count()
        return self._waits

    def _count(self) -> None:
        """Asked for every job at every heartbeat of every agent: what was counted is not counted again."""
        counted = self._counted
        if counted is not None:
            state, pending, unsure = counted
            if state is self.state and pending is self.pending and unsure is self.unsure:
                return
        possible = [self.state, *self.unsure, *((self.pending,) if self.pending is not None else ())]
        used = [slots_used(state) for state in possible]
        agents = {agent for uses in used for agent in uses}
        self._uses = {agent: max(uses.get(agent, 0) for uses in used) for agent in agents}
        self._waits = sum(self._uses.values()) < self.slots
        self._counted = self.state, self.pending, self.unsure

    @property
    def slots(self) -> int:
        """Of all its islands, with or without a place."""
        return sum(len(island.slots) for island in self.state.islands)

    def follow_lineage(self) -> None:
        """What a roll-back gave up is hidden at once, not only when the new lineage has done those steps again."""
        for island in self.state.islands:
            if island.record is not None:
                self.figures.begin_lineage(island.record.lineage, after_step=island.record.target_step)
