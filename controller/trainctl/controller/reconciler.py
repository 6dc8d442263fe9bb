"""The loop around the pure core: on news or a timer, one pass over the job; what changed is persisted, then sent."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Sequence
from random import Random

from trainctl.controller.agents.registry import AgentRegistry
from trainctl.controller.desired_by_agent import DesiredByAgent
from trainctl.controller.domain.events import (
    AGENT_LOST,
    RECOVERY_FINISHED,
    WORKER_CONDEMNED,
    WORKER_EXITED,
    WORKER_LOST,
)
from trainctl.controller.domain.job_records import Condition
from trainctl.controller.domain.job_state import JobState
from trainctl.controller.domain.pace import Heard, pause_s
from trainctl.controller.domain.placement import slots_used
from trainctl.controller.domain.reconcile import Reconciliation, reconcile
from trainctl.controller.identities import LeaderIds
from trainctl.controller.jobs.book import JobBook, is_live
from trainctl.controller.jobs.entry import JobEntry
from trainctl.controller.jobs.journal import JobEvent
from trainctl.controller.leadership import Leadership
from trainctl.controller.metrics.registry import ControllerMetrics
from trainctl.controller.steady_clock import SteadyClock
from trainctl.controller.work_queue import WorkQueue
from trainctl.core.errors import FencedError, UnavailableError
from trainctl.core.records.worker import WorkerObserved
from trainctl.protos.v1 import agent_pb2

_log = logging.getLogger(__name__)
_DEGRADED = "ControllerDegraded"
OVERLAPPING_PASSES = 4
FAULT_EVENTS = frozenset({WORKER_EXITED, WORKER_LOST, WORKER_CONDEMNED, AGENT_LOST})


class Reconciler:
    """Keeps every live job moving; a job whose pass fails is tried again later and holds up nobody.

    Args:
        book: the jobs, as an earlier term left them.
        agents: the view.
        leadership: whose epoch is written into every decision.
        clock: the time of decisions.
        metrics: passes, failures, events.
        chance: of names that never come twice, and of pauses.
    """

    def __init__(
        self,
        book: JobBook,
        agents: AgentRegistry,
        leadership: Leadership,
        clock: SteadyClock,
        metrics: ControllerMetrics,
        chance: Random,
    ) -> None:
        self._book = book
        self._agents = agents
        self._leadership = leadership
        self._clock = clock
        self._metrics = metrics
        self._ids = LeaderIds(leadership.epoch, chance)
        self._queue = WorkQueue(chance)
        self._desired = DesiredByAgent()
        self._version = 0
        for entry in book.live():
            self._desired.follow(entry.state)
        book.on_change(self._changed)

    async def run(self) -> None:
        """Works until cancelled."""
        self.look_at_all()
        # When the settling window ends, silence begins to count although nothing happens.
        asyncio.get_running_loop().call_later(self._agents.unsettled_for_s() + 0.01, self.look_at_all)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(OVERLAPPING_PASSES):
                    group.create_task(self._queue.work(self._pass, self._failed))
        finally:
            self._queue.close()

    def look_at(self, uid: str) -> None:
        """There is news that this job may depend on."""
        self._queue.add(uid)

    def look_at_all(self) -> None:
        """There is news that any live job may depend on."""
        for state in self._book.states():
            if is_live(state):
                self._queue.add(state.uid)

    def look_at_jobs_on(self, agent_incarnation: int, workers: Sequence[WorkerObserved], *, news: bool = True) -> None:
        """An agent reported: its jobs look, and so do those that wait for room.

        Where only progress is new, soon; where members answer, when the last one has.
        """
        for entry in self._book.live():
            if entry.waits_for_room or agent_incarnation in entry.uses():
                answer = news and entry.answers.take(entry.state, agent_incarnation, workers)
                if answer and not entry.answers.awaited(entry.state):
                    self.look_at(entry.state.uid)  # the last one
                else:
                    self._look_soon(entry, Heard.ANSWER if answer else Heard.NEWS if news else Heard.PROGRESS)

    def write_desired(self, agent_incarnation: int, message: agent_pb2.AgentDesired) -> None:
        """The whole desired state of an agent, from committed states only, into an empty message."""
        self._version += 1
        message.epoch = self._leadership.epoch
        message.version = self._version
        message.deleted_jobs.extend(self._book.deleted())
        message.heartbeat_s = self._agents.heartbeat_s
        self._desired.write(agent_incarnation, message)

    def queue_depth(self) -> int:
        """Jobs waiting for a pass."""
        return len(self._queue)

    async def _pass(self, uid: str) -> None:
        if not self._book.knows(uid):
            return
        began_s = self._clock.monotonic_s()
        result = await self._book.apply(uid, self._decide)
        entry = self._book.entry(uid)
        if entry.trouble is not None and entry.trouble.type == _DEGRADED:
            entry.trouble = None
        self._metrics.observe("trainctl_reconcile_seconds", self._clock.monotonic_s() - began_s)
        if result.wake_at_s is not None:
            self._queue.add_within(uid, result.wake_at_s - self._clock.now_s())

    def _decide(self, state: JobState) -> Reconciliation:
        view = self._agents.view()
        free = self._book.free_slots(view.agents)
        return reconcile(state, view, free, self._clock.now_s(), self._leadership.epoch, self._ids)

    def _failed(self, uid: str, error: Exception) -> None:
        if isinstance(error, FencedError) or not self._book.knows(uid):
            return
        entry = self._book.entry(uid)
        if isinstance(error, UnavailableError):
            _log.warning("job %s: %s; trying again", entry.state.name, error)
            reason = "StoreUnavailable"
        else:
            self._metrics.inc("trainctl_reconcile_errors_total")
            text = "".join(traceback.format_exception(error))
            _log.error("job %s: reconcile failed", entry.state.name, extra={"traceback": text})
            reason = "ReconcileFailed"
        message = f"{type(error).__name__}: {error}"
        if entry.trouble is None or entry.trouble.message != message:
            entry.trouble = Condition(
                type=_DEGRADED, status="True", reason=reason, message=message, since_s=self._clock.now_s()
            )
            entry.changed.tell()

    def _changed(self, before: JobState | None, state: JobState, events: Sequence[JobEvent]) -> None:
        """After a commit: agents whose part changed are told, and where it made room all jobs look."""
        news = self._desired.follow(state)
        for session in self._agents.sessions() if news else ():
            if session.agent_incarnation in news:
                session.desire()
        for event in events:
            if event.type in FAULT_EVENTS and event.reason != "Expected":
                self._metrics.inc("trainctl_faults_total", type=event.type)
            if event.type == RECOVERY_FINISHED and state.recoveries:
                for phase, seconds in state.recoveries[-1].phases_s.items():
                    self._metrics.observe("trainctl_recovery_seconds", seconds, phase=phase)
        if before is None:
            self.look_at(state.uid)
        elif _frees(before, state):
            self.look_at_all()
        else:
            entry = self._book.entry(state.uid)
            self._look_soon(entry, Heard.ANSWER if entry.answers.awaited(state) else Heard.NEWS)

    def _look_soon(self, entry: JobEntry, heard: Heard) -> None:
        delay_s = pause_s(slots=entry.slots, agents=self._agents.count, heard=heard)
        self._queue.add_within(entry.state.uid, delay_s)


def _frees(before: JobState, after: JobState) -> bool:
    """Whether an agent has more free slots than before."""
    now = slots_used(after)
    return any(now.get(agent, 0) < count for agent, count in slots_used(before).items())
