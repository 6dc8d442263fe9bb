"""Fake workers and agents: they follow instructions late, repeat themselves, and die when the script says so."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from trainctl.core.records.generation import CheckpointRef, GenerationRecord, Rung
from trainctl.core.records.snapshot import SnapshotHeld, SnapshotsMade
from trainctl.core.records.step import Outcome, Phase, StepAction, StepFigures, StepReport
from trainctl.core.records.worker import (
    CheckpointReport,
    Instruction,
    Progress,
    WorkerDesired,
    WorkerError,
    WorkerObserved,
    WorkerPhase,
)


def outcome_of(generation: int, lineage: int, step: int) -> Outcome:
    return Outcome(
        generation=generation,
        lineage=lineage,
        step=step,
        action=StepAction.APPLY,
        gradient_scale=1.0 / step,
        learning_rate=0.1,
        loss_sum=10.0 / step,
        tokens=8,
        gradient_norm=1.0,
        cursor=step * 4,
        sample_digest=step,
    )


def figures_of(generation: int, lineage: int, step: int, wall_s: float = 0.0) -> StepFigures:
    return StepFigures(
        step=step,
        generation=generation,
        lineage=lineage,
        loss=2.0,
        learning_rate=0.1,
        gradient_norm=1.0,
        tokens=100,
        cursor=step * 4,
        sample_digest=1,
        step_s=0.5,
        vote_s=0.0,
        reduce_s=0.0,
        wall_s=wall_s,
    )


@dataclass
class SimGroup:
    """What the members of one generation share: who has arrived at which collective."""

    size: int
    ranks: dict[int, int] = field(default_factory=dict)
    """Who came, by rank: a worker is told of some members only."""
    arrived: dict[str, set[int]] = field(default_factory=dict)
    held_after: dict[int, bool] = field(default_factory=dict)
    """Steps after which somebody voted to wait, and whether to save there."""

    def arrive(self, what: str, incarnation: int) -> bool:
        """Joins a collective; True once all members have joined it."""
        here = self.arrived.setdefault(what, set())
        here.add(incarnation)
        return len(here) == self.size


@dataclass
class SimWorker:
    desired: WorkerDesired
    boot_at_s: float
    rng: random.Random
    started_s: float
    phase: WorkerPhase = WorkerPhase.STARTING
    lineage: int = 0
    applied: int = -1
    voted: Outcome | None = None
    retained: tuple[int, int] = (0, 0)
    generation: int = 0
    joined: int = 0
    prepared: int = 0
    report: StepReport | None = None
    frozen_since_s: float = -1.0
    exit_code: int | None = None
    exited_s: float = 0.0
    killed_at_s: float = 0.0
    leaves_at_s: float = 0.0
    held: int = 0
    error: WorkerError | None = None
    digest: str = "s"
    pristine: bool = True
    receiving: int = 0
    """Generation whose state has begun to come in."""
    loading: int = 0
    """Generation that begins with a checkpoint: what was loaded counts when all have agreed on it."""
    snapshots: SnapshotsMade | None = None
    in_memory: tuple[SnapshotHeld, ...] = ()
    """What it found on its node when it was last told to prepare."""
    history: tuple[int, ...] = ()
    """What the state was made from: the generation that voted each step."""

    @property
    def incarnation(self) -> int:
        return self.desired.incarnation

    @property
    def alive(self) -> bool:
        return self.exit_code is None

    @property
    def moving(self) -> bool:
        return self.alive and self.frozen_since_s < 0

    def end(self, code: int, now_s: float) -> None:
        if self.alive:
            self.exit_code, self.exited_s, self.phase = code, now_s, WorkerPhase.EXITED

    def observed(self, now_s: float) -> WorkerObserved:
        alive_age_s = now_s - self.frozen_since_s if self.frozen_since_s >= 0 else 0.05
        phase = Phase.COMPUTE if self.phase is WorkerPhase.RUNNING else Phase.READY
        if self.prepared > self.generation:
            phase = Phase.REBUILD if self.joined > self.prepared - 1 and self.joined else Phase.INTERRUPTED
        elif self.leaves_at_s:
            phase = Phase.FINISHED
        elif self.held and self.held == self.generation:
            phase = Phase.HELD
        step = self.voted.step if self.voted is not None and self.voted.lineage == self.lineage else 0
        return WorkerObserved(
            job_uid=self.desired.job_uid,
            slot=self.desired.slot,
            incarnation=self.incarnation,
            pid=1000 + self.incarnation % 10**6,
            phase=self.phase,
            generation=self.generation,
            progress=Progress(generation=self.joined, step=step, phase=phase, alive_age_s=alive_age_s),
            report=self.report,
            exit_code=self.exit_code,
            error=self.error,
            exited_age_s=now_s - self.exited_s if not self.alive else 0.0,
            snapshots=self.snapshots,
        )

    def act(self, world: SimCluster, now_s: float) -> None:
        """One small piece of work, if there is any."""
        world.now_s = now_s
        if not self.moving:
            return
        if self.phase is WorkerPhase.STARTING:
            if now_s >= self.boot_at_s:
                self.phase = WorkerPhase.READY
            return
        order = self.desired
        if order.instruction is Instruction.PREPARE and order.generation > self.prepared:
            self.in_memory = world.in_memory.get(world.node_of(self), ()) if world.in_memory else ()
            self._prepare(order.generation)
        elif order.instruction is Instruction.STOP:
            self.end(0, now_s)
        elif order.instruction is Instruction.RUN and order.record is not None:
            self._run(world, order.record, now_s)
            if self.phase is WorkerPhase.FINISHED:
                self._linger(now_s)

    def _linger(self, now_s: float) -> None:
        """Nobody says STOP for long, perhaps because the controller is away: the work is done, so it leaves."""
        self.leaves_at_s = self.leaves_at_s or now_s + 10.0
        if now_s > self.leaves_at_s:
            self.end(0, now_s)

    def _prepare(self, generation: int) -> None:
        self.prepared = generation
        self.phase = WorkerPhase.READY
        self.leaves_at_s = 0.0
        if self.loading > self.generation:
            self.applied = -1
        self.report = StepReport(
            prepared_generation=generation,
            lineage=self.lineage,
            applied_step=self.applied,
            voted=self.voted,
            retained_generation=self.retained[0],
            retained_step=self.retained[1],
            schema_digest=self.digest,
            state_bytes=640,
            pristine=self.pristine,
            snapshots=self.in_memory,
        )

    def _run(self, world: SimCluster, record: GenerationRecord, now_s: float) -> None:
        if self.prepared > record.generation:
            return
        group = world.group(record)
        self.joined = record.generation
        if self.generation != record.generation:
            group.ranks[self._rank(record)] = self.incarnation
            if group.arrive("rebuild", self.incarnation) and self._restore(world, record, now_s):
                restored = group.arrive("restored", self.incarnation)
                if restored:
                    assert (self.lineage, self.applied) == (record.lineage, record.target_step)
                    assert group.arrived.setdefault("agreed", {hash(self.history)}) == {hash(self.history)}
                    self.generation, self.phase = record.generation, WorkerPhase.RUNNING
            return
        self._train(world, group, record)

    def _refuse(self, uri: str, now_s: float) -> None:
        message = f"{uri}/data/w0.safetensors is corrupt: bytes 0:8 (param of w) do not have their checksum"
        self.error = WorkerError(
            type="DamagedCheckpointError", message=message, code="CHECKPOINT_DAMAGED", checkpoint=uri, traceback=""
        )
        self.end(1, now_s)

    def _rank(self, record: GenerationRecord) -> int:
        return next(m.global_rank for m in record.members if m.incarnation == self.incarnation)

    def _restore(self, world: SimCluster, record: GenerationRecord, now_s: float) -> bool:
        rank = self._rank(record)
        starts = record.rung is Rung.START and record.checkpoint is None
        if rank in record.holders and not starts:
            if self.applied == record.target_step - 1:
                assert record.outcome is not None
                assert self.retained == (record.outcome.generation, record.target_step)
                self.applied, self.retained = record.target_step, (0, 0)
                self.history = (*self.history, record.outcome.generation)
            assert (self.lineage, self.applied) == (record.lineage, record.target_step)
            self.voted = record.outcome or self.voted
            return True
        if record.holders and rank not in record.holders:
            came = world.group(record).ranks
            donors = [world.find(came[rank]) for rank in record.holders if rank in came]
            whole = [d for d in donors if d and d.moving and d.joined == record.generation]
            ready = [d for d in whole if d.applied == record.target_step and d.lineage == record.lineage]
            if not ready:
                return False
            if self.receiving != record.generation:
                self.receiving, self.applied, self.pristine, self.retained = record.generation, -1, False, (0, 0)
                return False
            self.history = ready[0].history
        elif record.snapshot is not None:
            assert record.snapshot.step == record.target_step
            self.loading, self.history, self.pristine = record.generation, (0,) * record.target_step, False
        elif record.checkpoint is not None:
            assert record.checkpoint.step == record.target_step
            if self.desired.slot in world.damaged.get(record.checkpoint.uri, ()):
                self._refuse(record.checkpoint.uri, now_s)
                return False
            self.loading = record.generation
            self.history = world.saved.get(record.checkpoint.uri, (0,) * record.target_step)
            self.pristine = False
        else:
            assert record.target_step == 0
            if not self.pristine:
                assert not record.holders, "who is to make the initial state can make it"
                self.error = WorkerError(type="StateLostError", message="lost", code="STATE_LOST", traceback="")
                self.end(1, now_s)
                return False
            self.history = ()
        self.lineage, self.applied = record.lineage, record.target_step
        self.retained, self.voted = (0, 0), None
        return True

    def _train(self, world: SimCluster, group: SimGroup, record: GenerationRecord) -> None:
        step = self.applied + 1
        if step > world.steps:
            if group.arrive("finish", self.incarnation):
                self.phase = WorkerPhase.FINISHED
            return
        if self.held == record.generation:
            return
        voted = self.voted is not None and self.voted.step == step and self.voted.generation == record.generation
        if voted:
            assert self.voted is not None
            self.applied, self.retained, self.pristine = step, (0, 0), False
            self.history = (*self.history, self.voted.generation)
            world.completed(self, record, step, save=group.held_after.get(step, False))
            if step in group.held_after and step < world.steps:
                self.held = record.generation
        elif self.retained == (record.generation, step):
            if self.desired.hold and self.incarnation not in group.arrived.get(f"vote {step}", ()):
                group.held_after[step] = group.held_after.get(step, False) or self.desired.checkpoint_on_stop
            if group.arrive(f"vote {step}", self.incarnation):
                self.voted = outcome_of(record.generation, record.lineage, step)
                world.voted(self.voted)
        elif group.arrive(f"reduce {step}", self.incarnation):
            self.retained = (record.generation, step)


@dataclass
class SimAgent:
    node: str
    incarnation: int
    slots: int
    alive: bool = True
    reachable: bool = True
    heard_s: float = 0.0
    died_s: float = 0.0
    desired: tuple[WorkerDesired, ...] = ()
    workers: dict[int, SimWorker] = field(default_factory=dict)
    gone: list[SimWorker] = field(default_factory=list)
    worker_type: type[SimWorker] = SimWorker

    def converge(self, now_s: float, rng: random.Random) -> None:
        """Kills what is not wanted, starts what is missing; never two lives of a slot at once."""
        if not self.alive:
            return
        wanted = {d.slot: d for d in self.desired}
        for slot, worker in list(self.workers.items()):
            order = wanted.get(slot)
            if order is None or order.incarnation != worker.incarnation:
                worker.end(-9, now_s)
                self.gone.append(self.workers.pop(slot))
                continue
            worker.desired = order
            if order.instruction is Instruction.KILL:
                worker.end(-9, now_s)
            elif order.instruction is Instruction.STOP and worker.frozen_since_s >= 0:
                worker.killed_at_s = worker.killed_at_s or now_s + order.grace_s
                if now_s > worker.killed_at_s:
                    worker.end(-9, now_s)
        for slot, order in wanted.items():
            if slot not in self.workers and order.instruction not in (Instruction.KILL, Instruction.STOP):
                boot_s = now_s + rng.uniform(0.1, 2.0)
                self.workers[slot] = self.worker_type(order, boot_s, rng, now_s)


class SimCluster:
    """The data plane of one job: agents, their workers, and what the workers share."""

    def __init__(self, steps: int, checkpoint_every: int) -> None:
        self.steps = steps
        self.checkpoint_every = checkpoint_every
        self.root = "mem://"
        self.agents: list[SimAgent] = []
        self.groups: dict[tuple[int, str], SimGroup] = {}
        self.on_figures = True
        self.disk_full = False
        self.now_s = 0.0
        self.saved_s: float | None = None
        self.stall_s, self.save_s = 0.0, 0.01
        self.figures: list[StepFigures] = []
        self.saved: dict[str, tuple[int, ...]] = {}
        self.damaged: dict[str, frozenset[int]] = {}
        """Slots whose worker finds damage in a checkpoint, by URI."""
        self.in_memory: dict[str, tuple[SnapshotHeld, ...]] = {}
        """Snapshots that a worker finds on its node, by node."""
        self.reports: list[CheckpointReport] = []
        self.votes: dict[tuple[int, int, int], Outcome] = {}
        self.on_vote: Callable[[Outcome], None] = lambda outcome: None

    def group(self, record: GenerationRecord) -> SimGroup:
        key = (record.generation, record.nonce)
        return self.groups.setdefault(key, SimGroup(record.world_size))

    def find(self, incarnation: int) -> SimWorker | None:
        return next((w for w in self.workers() if w.incarnation == incarnation), None)

    def node_of(self, worker: SimWorker) -> str:
        return next((a.node for a in self.agents if worker in a.workers.values()), "")

    def workers(self) -> list[SimWorker]:
        return [w for a in self.agents for w in a.workers.values()]

    def due(self, interval_s: float, step: int) -> bool:
        """Whether the first rank, told this interval, saves after a step."""
        self.saved_s = self.now_s if self.saved_s is None else self.saved_s
        return self.now_s - self.saved_s >= interval_s if interval_s else step % self.checkpoint_every == 0

    def voted(self, outcome: Outcome) -> None:
        self.votes[outcome.lineage, outcome.step, outcome.generation] = outcome

    def completed(self, worker: SimWorker, record: GenerationRecord, step: int, *, save: bool = False) -> None:
        first = record.members[0].incarnation == worker.incarnation
        if first and self.on_figures:
            self.figures.append(figures_of(record.generation, record.lineage, step))
        due = save or self.due(worker.desired.checkpoint_interval_s, step) or step == self.steps
        if first and due and step > record.checkpointed_step and self.disk_full:
            self.reports.append(
                CheckpointReport(
                    job_uid=record.job_uid, island=record.island, generation=record.generation, step=step,
                    lineage=record.lineage, error="no space left on device",
                )
            )  # fmt: skip
        elif first and due and step > record.checkpointed_step:
            ref = CheckpointRef(
                uri=f"{self.root}{record.lineage}/{step}",
                step=step,
                lineage=record.lineage,
                attempt="a",
                manifest_sha256="0",
            )
            self.saved[ref.uri], self.saved_s = worker.history, self.now_s
            self.reports.append(
                CheckpointReport(
                    job_uid=record.job_uid,
                    island=record.island,
                    generation=record.generation,
                    step=step,
                    lineage=record.lineage,
                    ref=ref,
                    seconds=self.save_s,
                    stall_s=self.stall_s,
                )
            )
