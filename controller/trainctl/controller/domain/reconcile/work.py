"""The scratch pad of one pass: the state as changed so far, the events, and the next deadline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from trainctl.controller.domain.events import EventDraft
from trainctl.controller.domain.job_state import IslandState, JobState, Slot
from trainctl.controller.domain.reconcile.result import IdSource, Reconciliation
from trainctl.controller.domain.states import Machine, SlotState, advance
from trainctl.controller.domain.view import ClusterView
from trainctl.core.records.spec import ResourcesSpec
from trainctl.core.records.worker import WorkerObserved
from trainctl.core.timeouts import Timeouts


class Work:
    """One pass over one job and one of its islands. Lives only inside ``reconcile``; everything it holds is frozen."""

    def __init__(
        self, job: JobState, island_id: str, view: ClusterView, free: Mapping[int, int], now_s: float, epoch: int,
        ids: IdSource,
    ) -> None:  # fmt: skip
        island = job.island(island_id)
        if island is None:
            raise KeyError(island_id)
        self._before = job
        self.job = job
        self.island: IslandState = island
        self.view = view
        self.free = free
        self.now_s = now_s
        self.epoch = epoch
        self.ids = ids
        self.timeouts = Timeouts.for_job(job.spec).at_pace(view.heartbeat_s)
        self.events: list[EventDraft] = []
        self.draining = view.agents.draining
        self._observed: dict[tuple[int, int, int], WorkerObserved | None] = {}
        self._wake_at_s: float | None = None

    @property
    def resources(self) -> ResourcesSpec:
        """What each node contributes."""
        return self.job.spec.spec.resources

    @property
    def per_node(self) -> int:
        """Workers on each node."""
        return self.resources.workers_per_node

    @property
    def target_groups(self) -> int:
        """Nodes that the job should run on."""
        return self.job.spec.spec.nodes.target

    @property
    def min_groups(self) -> int:
        """Fewest nodes that the job may run on."""
        return self.job.spec.spec.nodes.min

    def set_job(self, **changes: Any) -> None:
        """Changes fields of the job."""
        self.job = replace(self.job, **changes)

    def set_island(self, **changes: Any) -> None:
        """Changes fields of the island."""
        self.island = replace(self.island, **changes)

    def slot(self, index: int) -> Slot:
        """The slot as changed so far."""
        return self.island.slots[index]

    def slots(self) -> Iterator[Slot]:
        """All slots as they were when the iteration began."""
        yield from self.island.slots

    def set_slot(self, index: int, **changes: Any) -> None:
        """Changes fields of a slot other than its state."""
        self.island = self.island.with_slot(replace(self.slot(index), **changes))

    def move_slot(self, index: int, to: SlotState, **changes: Any) -> None:
        """Changes the state of a slot along its transition table."""
        state = advance(Machine.WORKER_SLOT, self.slot(index).state, to)
        self.set_slot(index, state=state, since_s=self.now_s, missing_since_s=0.0, **changes)

    def empty_slot(self, index: int, *, unbind: bool) -> None:
        """The worker is gone for sure; with ``unbind`` the slot gives up its place, too."""
        place: dict[str, Any] = {"node": "", "agent_incarnation": 0, "address": ""} if unbind else {}
        self.move_slot(index, SlotState.EMPTY, pid=0, reason="", **place)

    def observed(self, slot: Slot) -> WorkerObserved | None:
        """The newest observation of the worker in the slot."""
        life = (slot.index, slot.incarnation, slot.agent_incarnation)
        if life not in self._observed:
            self._observed[life] = self.view.worker(self.job.uid, *life)
        return self._observed[life]

    def emit(self, type_: str, reason: str, message: str, **fields: object) -> None:
        """Notes an event of this pass."""
        texts = {key: str(value) for key, value in fields.items()}
        self.events.append(EventDraft(type=type_, reason=reason, message=message, fields=texts))

    def wake_at(self, at_s: float) -> None:
        """Asks to be called again at ``at_s`` at the latest."""
        if self._wake_at_s is None or at_s < self._wake_at_s:
            self._wake_at_s = at_s

    def due(self, at_s: float) -> bool:
        """Whether a deadline has passed; if not, it becomes a reason to wake up."""
        if self.now_s >= at_s:
            return True
        self.wake_at(at_s)
        return False

    def overdue(self, asked_s: float, limit_s: float) -> bool:
        """Whether something asked for at ``asked_s`` should be done by now; this leader's own time counts only."""
        return self.due(max(asked_s, self.job.epoch_since_s) + limit_s)

    def result(self) -> Reconciliation:
        """The outcome of the pass; the very same state object if nothing changed.

        News of a snapshot alone are not worth a write: they come often, and workers tell them again.
        """
        state = self._before
        if self.job is not state or self.island is not state.island(self.island.id):
            state = self.job.with_island(self.island)
            state = self._before if state == self._before else state
        told_only = state is not self._before and not self.events
        told_only = told_only and replace(state, snapshot_figures=self._before.snapshot_figures) == self._before
        events = tuple(self.events)
        return Reconciliation(state=state, events=events, wake_at_s=self._wake_at_s, durable=not told_only)
