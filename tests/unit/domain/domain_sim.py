"""A controller life in virtual time: reconcile against fake agents, with seeded faults, checked after each pass."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from trainctl.controller.domain import goodput
from trainctl.controller.domain.desired import DesiredWorkers, desired_workers
from trainctl.controller.domain.events import EventDraft
from trainctl.controller.domain.job_state import JobState
from trainctl.controller.domain.placement import slots_used
from trainctl.controller.domain.reconcile import (
    Reconciliation,
    observe_checkpoint,
    observe_figures,
    reconcile,
    request_cancel,
    request_pause,
    request_restart,
    request_resume,
    request_rollback,
    request_scale,
    rollback_target,
)
from trainctl.controller.domain.states import STOPPING, TERMINAL, JobPhase, SlotState
from trainctl.controller.domain.submit import new_job
from trainctl.controller.domain.view import AgentView, ClusterView, ListedAgents
from trainctl.core.errors import PreconditionError, SpecError
from trainctl.core.records.generation import GenerationRecord, Rung
from trainctl.core.records.spec import (
    CheckpointSpec,
    JobMetadata,
    JobSpec,
    MaxRestartsSpec,
    NodesSpec,
    RecoverySpec,
    ResourcesSpec,
    SnapshotsSpec,
    TrainJob,
)
from trainctl.core.records.step import Outcome
from trainctl.core.records.train_spec import BatchSpec, TrainSpec
from trainctl.core.records.worker import WorkerDesired
from trainctl.core.timeouts import Timeouts
from unit.domain.domain_sim_nodes import SimAgent, SimCluster, SimWorker

PLENTY = MaxRestartsSpec(user=1000, process=1000)


def sim_job(
    *,
    nodes: NodesSpec,
    per_node: int,
    steps: int = 60,
    profile: str = "fast",
    interval: str = "",
    snapshots: str = "",
) -> TrainJob:
    train = TrainSpec(steps=steps, batch=BatchSpec(sequences=16, micro_batches=16))
    spec = JobSpec(
        train=train,
        nodes=nodes,
        resources=ResourcesSpec(workers_per_node=per_node),
        recovery=RecoverySpec(profile=profile, max_restarts=PLENTY),
        checkpoint=CheckpointSpec(interval=interval, snapshots=SnapshotsSpec(interval=snapshots)),
    )
    return TrainJob(metadata=JobMetadata(name="sim"), spec=spec)


class Ids:
    def __init__(self) -> None:
        self.count = 0

    def incarnation(self) -> int:
        self.count += 1
        return self.count

    def nonce(self) -> str:
        self.count += 1
        return f"n{self.count}"


@dataclass
class Checker:
    """The invariants, checked on each transaction the controller would write."""

    records: list[GenerationRecord] = field(default_factory=list)
    outcomes: dict[tuple[int, int], Outcome] = field(default_factory=dict)
    fresh_after: list[int] = field(default_factory=list)

    def transaction(self, before: JobState, after: JobState, events: tuple[EventDraft, ...]) -> None:
        assert before.phase not in TERMINAL or before == after, "I1: terminal never changes"
        if before.phase is not after.phase:
            chain = [e.fields for e in events if e.fields.get("from") and e.type.startswith("job.")]
            assert chain, "each phase change has an event"
            assert chain[0]["from"] == before.phase.value
            assert chain[-1]["to"] == after.phase.value
        old, new = before.sole_island, after.sole_island
        assert 0 <= new.generation - old.generation <= 2, "I2: numbers are dense and rise"
        if new.generation != old.generation:
            assert any(e.type == "generation.preparing" for e in events)
        assert (new.proposal is None) or new.proposal.generation == new.generation
        if new.record is not None and new.record is not old.record and new.record != old.record:
            self.commit(old.record, new.record)
        incarnations = [s.incarnation for s in new.slots if s.state.value != "EMPTY"]
        assert len(set(incarnations)) == len(incarnations)
        assert len(new.slots) >= len(old.slots), "a slot never goes away"
        for a, b in zip(old.slots, new.slots, strict=False):
            if a.incarnation != b.incarnation and a.state.value != "EMPTY":
                kinds = {e.type for e in events if e.fields.get("slot") == str(a.index)}
                assert kinds & {"worker.exited", "worker.lost"}, "a slot is refilled only after exit or loss"

    def commit(self, old: GenerationRecord | None, new: GenerationRecord) -> None:
        self.records.append(new)
        assert new.store_address
        assert [m.global_rank for m in new.members] == list(range(len(new.members)))
        assert [m.slot for m in new.members] == sorted(m.slot for m in new.members)
        if old is not None:
            assert new.generation > old.generation
            assert new.predecessor == old.generation, "I3: one line of committed generations"
            assert new.lineage in (old.lineage, old.lineage + 1)
            if new.lineage == old.lineage:
                assert new.target_step >= old.target_step
        if new.outcome is not None:
            key = (new.lineage, new.target_step)
            assert self.outcomes.setdefault(key, new.outcome) == new.outcome, "an outcome never changes"
            assert new.outcome.step == new.target_step


class Simulation:
    def __init__(
        self,
        seed: int,
        job: TrainJob,
        *,
        agents: int,
        slots: int,
        faults_until_s: float = 60.0,
        fault_rate: float | None = None,
        wish_rate: float = 0.0,
    ) -> None:
        self.rng = random.Random(seed)
        self.ids = Ids()
        self.now_s = 1000.0
        self.epoch = 1
        self.faults_until_s = self.now_s + faults_until_s
        self.faults_from_s = self.now_s + self.rng.choice((0.0, 5.0, 15.0))
        self.fault_rate = self.rng.choice((0.01, 0.03, 0.08)) if fault_rate is None else fault_rate
        self.wish_rate = wish_rate
        self.rollbacks = 0
        self.draining: set[str] = set()
        self.cluster = SimCluster(job.spec.train.steps, checkpoint_every=7)
        for number in range(agents):
            self._start_agent(f"node-{number}", slots)
        self.state, _ = new_job("u1", job, workdir="mem://", now_s=self.now_s)
        self.timeouts = Timeouts.for_job(self.state.spec)
        self.check = Checker()
        self.events: list[EventDraft] = []
        self.settled_at_s = 0.0
        self.down_until_s = 0.0
        self.wake_at_s: float | None = None
        self.stale: dict[int, AgentView] = {}
        self.wanted: Mapping[int, tuple[WorkerDesired, ...]] = {}
        self.pushed: JobState | None = None
        self.composer = DesiredWorkers()

    def _start_agent(self, node: str, slots: int) -> None:
        agent = SimAgent(node, self.ids.incarnation(), slots, heard_s=self.now_s)
        self.cluster.agents.append(agent)

    def run(self, limit_s: float = 1500.0) -> JobState:
        end_s = self.now_s + limit_s
        while self.state.phase not in TERMINAL:
            assert self.now_s < end_s, f"not finished: {self.state.phase} {self.state.message} {self.state.sole_island}"
            self.tick()
        return self.state

    def tick(self) -> None:
        self.now_s += self.rng.choice((0.02, 0.05, 0.1, 0.2, 0.4))
        if self.faults_from_s < self.now_s < self.faults_until_s and self.rng.random() < self.fault_rate:
            self.fault()
        self._wish()
        self._heal()
        for agent in self.cluster.agents:
            if agent.alive and self.rng.random() < 0.8:
                agent.converge(self.now_s, self.rng)
        for _ in range(3):
            workers = self.cluster.workers()
            self.rng.shuffle(workers)
            for worker in workers:
                if self.rng.random() < 0.7:
                    worker.act(self.cluster, self.now_s)
        if self.now_s >= self.down_until_s:
            self._controller()

    def _wish(self) -> None:
        """In the end everything is let go on, so that the job can finish."""
        up = self.now_s >= self.down_until_s
        if self.now_s < self.faults_until_s:
            if up and self.rng.random() < self.wish_rate:
                self.wish()
        elif self.wish_rate and up:
            self.draining = set()
            if self.state.phase is JobPhase.PAUSED:
                self.persist(request_resume(self.state, self.now_s))
            elif self.state.phase not in STOPPING | TERMINAL and self.state.spec.spec.nodes.min > 1:
                self.persist(request_scale(self.state, self.now_s, least=1))

    def _controller(self) -> None:
        for agent in self.cluster.agents:
            if agent.alive and agent.reachable and self.rng.random() < 0.9:
                agent.heard_s = self.now_s
        due = self.wake_at_s is not None and self.now_s >= self.wake_at_s
        if not due and self.rng.random() < 0.2:
            return
        self._checkpoints()
        view = self.view()
        used = slots_used(self.state)
        free = {a.agent_incarnation: a.slots - used.get(a.agent_incarnation, 0) for a in view.agents}
        result = reconcile(self.state, view, free, self.now_s, self.epoch, self.ids)
        self.persist(result)
        self.wake_at_s = result.wake_at_s
        if self.rng.random() < 0.05:
            self._fixed_point(view)
        self._push()

    def _fixed_point(self, view: ClusterView) -> None:
        """Looking again at the same cluster soon changes nothing more."""
        used = slots_used(self.state)
        free = {a.agent_incarnation: a.slots - used.get(a.agent_incarnation, 0) for a in view.agents}
        for _ in range(4):
            result = reconcile(self.state, view, free, self.now_s, self.epoch, self.ids)
            if result.state is self.state:
                assert not result.events
                return
            self.persist(result)
        raise AssertionError("reconcile does not come to rest")

    def persist(self, result: Reconciliation) -> None:
        before = self.state
        self._check_commit(before, result.state)
        self._check_saved(before, result.state)
        self.check.transaction(before, result.state, result.events)
        self.events.extend(result.events)
        self.state = result.state
        end_s = self.state.ended_s or self.now_s
        spent = goodput.total_us(self.state.goodput, end_s)
        assert spent == goodput.microseconds(end_s) - self.state.goodput.start_us, "goodput is conserved"

    def _check_commit(self, before: JobState, after: JobState) -> None:
        """No vote is lost while a member that can finish it lives."""
        old, new = before.sole_island.record, after.sole_island.record
        if old is None or new is None or new.generation == old.generation:
            return
        if before.rollback is not None:
            assert after.rollback is None
            assert (new.lineage, new.target_step) == (old.lineage + 1, before.rollback.checkpoint.step)
            return
        slots = after.sole_island.slots
        there = {slot.incarnation for slot in slots if slot.alive or slot.state is SlotState.DRAINING}
        known = {m.incarnation for m in (*new.members, *old.members)} & there
        members = [self.cluster.find(incarnation) for incarnation in known]
        live = [w for w in members if w is not None and w.alive and w.lineage == old.lineage and w.applied >= 0]
        if not live:
            return
        best = max(max(w.applied, w.voted.step if w.voted and w.voted.lineage == old.lineage else 0) for w in live)
        assert new.lineage == old.lineage, "no roll-back while a holder lives"
        assert new.target_step >= best
        assert new.rung not in (Rung.CHECKPOINT, Rung.START) or new.target_step == old.target_step

    def _check_saved(self, before: JobState, after: JobState) -> None:
        """Nobody is stopped for a pause or a restart before the newest step that anybody holds is in a checkpoint."""
        wish, record = before.halt, before.sole_island.record
        stops = wish is not None and not wish.stopping and after.halt is not None and after.halt.stopping
        if not stops or wish is None or wish.allow_loss or not wish.saves or record is None:
            return
        alive = {slot.incarnation for slot in after.sole_island.slots if slot.state is SlotState.DRAINING}
        found = [self.cluster.find(m.incarnation) for m in record.members if m.incarnation in alive]
        held = max((w.applied for w in found if w is not None and w.alive and w.lineage == record.lineage), default=0)
        saved = after.checkpoints[-1].step if after.checkpoints else 0
        assert saved >= held, f"step {held} is given up, the newest checkpoint is of step {saved}"

    def _checkpoints(self) -> None:
        for report in self.cluster.reports:
            for _ in range(self.rng.choice((1, 1, 2))):
                self.persist(observe_checkpoint(self.state, report, self.now_s))
        self.cluster.reports.clear()
        if self.cluster.figures:
            self.persist(observe_figures(self.state, self.cluster.figures, self.now_s))
            self.cluster.figures.clear()

    def view(self) -> ClusterView:
        views = []
        for agent in self.cluster.agents:
            if not agent.alive and self.now_s - agent.died_s > 30:
                continue
            views.append(self._agent_view(agent))
        return ClusterView(agents=ListedAgents(views), settled=self.now_s >= self.settled_at_s)

    def _agent_view(self, agent: SimAgent) -> AgentView:
        fresh = agent.alive and agent.reachable
        if (not fresh or self.rng.random() < 0.1) and agent.incarnation in self.stale:
            workers = self.stale[agent.incarnation].workers
        else:
            workers = tuple(w.observed(self.now_s) for w in agent.workers.values())
        heard_s = max(agent.heard_s, self.settled_at_s - self.timeouts.settle_s)
        seen = AgentView(
            node=agent.node,
            agent_incarnation=agent.incarnation,
            address="127.0.0.1",
            slots=agent.slots,
            connected=fresh,
            last_heard_age_s=self.now_s - heard_s,
            process_exited=not agent.alive and self.now_s - agent.died_s > 0.2,
            store_address=f"{agent.node}:{agent.incarnation}",
            cordoned=agent.node in self.draining,
            draining=agent.node in self.draining,
            workers=workers,
        )
        if fresh:
            self.stale[agent.incarnation] = seen
        return seen

    def _push(self) -> None:
        if self.pushed is not self.state:
            self.wanted, self.pushed = self.composer.of(self.state), self.state
        wanted = self.wanted
        if self.rng.random() < 0.01:
            assert desired_workers(JobState.from_wire(self.state.to_wire())) == wanted
        for agent in self.cluster.agents:
            if agent.alive and agent.reachable and self.rng.random() < 0.8:
                self._deliver(agent, wanted.get(agent.incarnation, ()))

    def _deliver(self, agent: SimAgent, orders: tuple[WorkerDesired, ...]) -> None:
        for order in orders:
            for other in self.cluster.agents:
                life = other.workers.get(order.slot)
                if other is agent or life is None or not life.alive or not other.alive:
                    continue
                silent_s = self.now_s - other.heard_s
                assert life.incarnation < order.incarnation
                assert not other.reachable or silent_s > 0 or life.incarnation not in self._desired_lives()
        agent.desired = orders

    def _desired_lives(self) -> set[int]:
        return {d.incarnation for orders in self.wanted.values() for d in orders}

    def _heal(self) -> None:
        for agent in list(self.cluster.agents):
            quiet = self.now_s > self.faults_until_s
            if agent.alive and not agent.reachable and (quiet or self.rng.random() < 0.02):
                agent.reachable = True
            newest = max(a.incarnation for a in self.cluster.agents if a.node == agent.node)
            back = agent.incarnation == newest and not agent.alive
            if back and self.now_s - agent.died_s > 1 and (quiet or self.rng.random() < 0.03):
                self._start_agent(agent.node, agent.slots)

    def fault(self) -> None:
        kind = self.rng.choice(("kill", "kill", "kill2", "freeze", "all", "agent", "agent", "silent", "controller"))
        workers = [w for w in self.cluster.workers() if w.alive]
        agents = [a for a in self.cluster.agents if a.alive]
        if kind == "controller":
            self.restart_controller(self.rng.choice((0.1, 1.0, 8.0)))
        elif kind in ("agent", "silent") and agents:
            agent = self.rng.choice(agents)
            if kind == "agent":
                self.kill_agent(agent)
            else:
                agent.reachable = False
        elif workers:
            count = {"all": len(workers), "kill2": 2}.get(kind, 1)
            for worker in self.rng.sample(workers, min(count, len(workers))):
                if kind == "freeze":
                    self.freeze(worker)
                else:
                    worker.end(-9, self.now_s)

    def freeze(self, worker: SimWorker) -> None:
        if worker.alive and worker.frozen_since_s < 0:
            worker.frozen_since_s = self.now_s

    def kill_agent(self, agent: SimAgent) -> None:
        agent.alive, agent.died_s = False, self.now_s
        for worker in agent.workers.values():
            worker.end(-9, self.now_s)

    def restart_controller(self, down_s: float) -> None:
        before = self.state
        self.state = JobState.from_wire(json.loads(json.dumps(self.state.to_wire())))
        assert self.state == before
        self.down_until_s = self.now_s + down_s
        self.settled_at_s = self.down_until_s + self.timeouts.settle_s
        self.epoch += 1
        self.stale.clear()

    def wish(self) -> None:
        """Somebody asks for something at this moment; what is refused changes nothing."""
        kind = self.rng.choice(("pause", "resume", "resume", "restart", "rollback", "scale", "scale", "drain"))
        before = self.state
        try:
            if kind == "drain":
                self.drain()
            else:
                self.persist(self._wished(kind))
        except (PreconditionError, SpecError):
            assert self.state is before

    def _wished(self, kind: str) -> Reconciliation:
        if kind == "pause":
            return request_pause(self.state, self.now_s)
        if kind == "resume":
            return request_resume(self.state, self.now_s)
        if kind == "restart":
            return request_restart(self.state, self.now_s, allow_loss=self.rng.random() < 0.3)
        if kind == "rollback":
            result = request_rollback(self.state, self.now_s, target=rollback_target(self.state, None))
            self.rollbacks += 1
            return result
        least, most = sorted((self.rng.randint(1, 4), self.rng.randint(1, 4)))
        return request_scale(self.state, self.now_s, least=least, most=most)

    def drain(self) -> None:
        """Empties one node, and gives back those that were drained before."""
        nodes = sorted({agent.node for agent in self.cluster.agents})
        self.draining = set() if self.draining else {self.rng.choice(nodes)}

    def cancel(self) -> None:
        self.persist(request_cancel(self.state, self.now_s))

    def until(self, phase: JobPhase, limit_s: float = 200.0) -> None:
        end_s = self.now_s + limit_s
        while self.state.phase is not phase:
            assert self.now_s < end_s, f"waiting for {phase}: {self.state.phase} {self.state.message}"
            self.tick()
