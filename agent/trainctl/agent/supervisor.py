"""Carries out what ``state.decide`` decides, whenever something changed."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from trainctl.agent import state
from trainctl.agent.forkserver.client import ForkServerClient
from trainctl.agent.logs.store import LogStore
from trainctl.agent.metrics import AgentMetrics
from trainctl.agent.state import Action, WorkerKey
from trainctl.agent.worker import Worker, WorkerEvents
from trainctl.core.records.worker import WorkerDesired, WorkerObserved
from trainctl.core.system.faults import FaultPlan

_LOG = logging.getLogger(__name__)


class Supervisor:
    """Parent-side owner of all workers of this node.

    Args:
        server: forks them.
        logs: keeps what they print.
        entry: ``module:function`` that a worker runs.
        node: name of the node, for fault points.
        node_dir: folder of the node.
        first_local_rank: number of its first worker, where several agents share a machine.
        secrets: folder of the values that jobs want by name; None: there are none.
        memory: folder for the snapshots of a worker; None: there is none for it.
        failure_domain: what the node fails together with; empty: with no other one.
        events: who is told about news; ``changed`` means that ``observe`` has changed.
        metrics: counts starts and exits.
    """

    def __init__(
        self,
        *,
        server: ForkServerClient,
        logs: LogStore,
        entry: str,
        node: str,
        node_dir: str,
        first_local_rank: int,
        secrets: Path | None = None,
        memory: Callable[[WorkerDesired], Path | None] = lambda desired: None,
        failure_domain: str = "",
        events: WorkerEvents,
        metrics: AgentMetrics,
    ) -> None:
        self._server = server
        self._logs = logs
        self._entry = entry
        self._node = node
        self._node_dir = node_dir
        self._first_local_rank = first_local_rank
        self._secrets = secrets
        self._memory = memory
        self._failure_domain = failure_domain
        self._events = events
        self._metrics = metrics
        self._faults = FaultPlan()
        self._desired: tuple[WorkerDesired, ...] = ()
        self._workers: dict[WorkerKey, Worker] = {}
        self._counted: set[WorkerKey] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._carry_out: dict[type[Action], Callable[..., None]] = {
            state.Start: self._start,
            state.Decline: self._decline,
            state.Instruct: self._instruct,
            state.Terminate: self._terminate,
            state.Kill: self._kill,
            state.Forget: self._forget,
        }

    @property
    def desired(self) -> tuple[WorkerDesired, ...]:
        """What is wanted now."""
        return self._desired

    def set_desired(self, desired: Sequence[WorkerDesired]) -> None:
        """Takes a new desired state of the whole node and begins to converge to it."""
        self._desired = tuple(desired)
        self.reconcile()

    def condemn_all(self) -> None:
        """SIGKILLs all workers and wants none."""
        for worker in self._workers.values():
            if not worker.life.exited:
                worker.kill()
        self.set_desired(())

    def reconcile(self) -> None:
        """Does what is to be done now; safe to call at any time."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lives = tuple(worker.life for worker in self._workers.values())
        now_s = time.monotonic()
        decision = state.decide(self._desired, lives, now_s=now_s, can_start=self._server.up)
        for action in decision.actions:
            self._carry_out[type(action)](action)
        if decision.wake_at_s is not None:
            delay_s = max(0.0, decision.wake_at_s - time.monotonic())
            self._timer = asyncio.get_running_loop().call_later(delay_s + 0.001, self.reconcile)

    def observe(self) -> tuple[WorkerObserved, ...]:
        """All workers as they are now, exited ones too until nobody asks for them."""
        now_s = time.monotonic()
        for worker in self._workers.values():
            worker.sample(now_s)
        return tuple(worker.observe(now_s) for _, worker in sorted(self._workers.items()))

    def weigh(self) -> None:
        """Reads the memory of all workers."""
        for worker in self._workers.values():
            worker.weigh()

    def census(self) -> list[tuple[str, str]]:
        """Job name and phase of each worker, for metrics; safe from another thread."""
        workers = list(self._workers.values())
        return [(worker.job_name, worker.observe(0.0).phase.value) for worker in workers]

    async def wait_ended(self) -> None:
        """Waits until no worker lives."""
        for worker in tuple(self._workers.values()):
            await worker.exited.wait()

    def _start(self, action: state.Start) -> None:
        desired = action.desired
        self._faults.reach("agent.before_start", node=self._node, slot=desired.slot, incarnation=desired.incarnation)
        worker = self._add(desired)
        _LOG.info("job %s: starting slot %d incarnation %d", desired.job_name, desired.slot, desired.incarnation)
        worker.start(self._server, self._logs.capture(worker.key))
        self._metrics.starts.labels(desired.job_name).inc()

    def _decline(self, action: state.Decline) -> None:
        self._add(action.desired).decline()

    def _instruct(self, action: state.Instruct) -> None:
        self._workers[action.key].instruct(action.desired)

    def _terminate(self, action: state.Terminate) -> None:
        self._workers[action.key].terminate()

    def _kill(self, action: state.Kill) -> None:
        _LOG.info("killing %s: %s", action.key, action.reason)
        self._workers[action.key].kill()

    def _forget(self, action: state.Forget) -> None:
        self._workers.pop(action.key).close()
        self._counted.discard(action.key)

    def _add(self, desired: WorkerDesired) -> Worker:
        events = WorkerEvents(changed=self._changed, figures=self._events.figures, report=self._events.report)
        taken = {worker.local_rank for worker in self._workers.values() if not worker.life.exited}
        local_rank = next(number for number in itertools.count(self._first_local_rank) if number not in taken)
        worker = Worker(
            desired,
            entry=self._entry,
            node_dir=self._node_dir,
            local_rank=local_rank,
            secrets=self._secrets,
            memory=self._memory(desired),
            failure_domain=self._failure_domain,
            events=events,
        )
        self._workers[worker.key] = worker
        return worker

    def _changed(self) -> None:
        """A worker has news: perhaps its exit, for which the next life of its slot waits."""
        for key, worker in self._workers.items():
            if worker.life.exited and key not in self._counted:
                self._counted.add(key)
                observed = worker.observe(0.0)
                _LOG.info("job %s: slot %d incarnation %d ended with exit code %s",
                          worker.job_name, key.slot, key.incarnation, observed.exit_code)  # fmt: skip
                self._metrics.count_exit(worker.job_name, observed)
        self._events.changed()
        asyncio.get_running_loop().call_soon(self.reconcile)
