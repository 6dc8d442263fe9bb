"""The simulator's command jobs: launchers of a command that only works while all its ranks do."""

from __future__ import annotations

from dataclasses import dataclass, replace

from trainctl.core.records.generation import GenerationRecord, Rung
from trainctl.core.records.spec import (
    NOTHING,
    HangSpec,
    JobMetadata,
    JobSpec,
    LaunchSpec,
    MaxRestartsSpec,
    NodesSpec,
    RecoverySpec,
    ResourcesSpec,
    TrainJob,
)
from trainctl.core.records.step import Phase, StepReport
from trainctl.core.records.worker import Progress, WorkerError, WorkerObserved, WorkerPhase
from unit.domain.domain_sim import PLENTY, Simulation
from unit.domain.domain_sim_nodes import SimAgent, SimCluster, SimWorker

_ECHO_HOLD_S = 0.5


def command_job(
    *, nodes: NodesSpec, per_node: int, watch: str = NOTHING, after: str = "5s", restarts: MaxRestartsSpec = PLENTY
) -> TrainJob:
    spec = JobSpec(
        command=("python", "train.py"),
        launch=LaunchSpec(hang=HangSpec(watch=watch, after=after)),
        nodes=nodes,
        resources=ResourcesSpec(workers_per_node=per_node),
        recovery=RecoverySpec(profile="fast", max_restarts=restarts),
    )
    return TrainJob(metadata=JobMetadata(name="sim"), spec=spec)


@dataclass
class CommandWorker(SimWorker):
    """A launcher.

    Attributes:
        silent_since_s: since when its command gives no sign of life, -1 while it does.
        fails_at_s: when it will say that its command ended with exit code 1, after that of another rank; 0 if not.
    """

    silent_since_s: float = -1.0
    fails_at_s: float = 0.0

    def observed(self, now_s: float) -> WorkerObserved:
        seen = super().observed(now_s)
        phases = {WorkerPhase.RUNNING: Phase.COMMAND, WorkerPhase.FINISHED: Phase.FINISHED}
        phase = phases.get(self.phase, Phase.READY)
        since_s = [since_s for since_s in (self.silent_since_s, self.frozen_since_s) if since_s >= 0]
        age_s = now_s - min(since_s) if since_s else 0.05
        progress = Progress(generation=self.generation, phase=phase, phase_age_s=age_s + 1.0, alive_age_s=age_s)
        return replace(seen, progress=progress)

    def fail(self, code: int, now_s: float) -> None:
        """Its command ended with ``code``, as a shell would show it, and so does the launcher."""
        names = {-9: "was ended by SIGKILL", -6: "was ended by SIGABRT"}
        how = names.get(code, f"ended with exit code {code}")
        if self.alive:
            reason = "COMMAND_SIGNAL" if code < 0 else "COMMAND_EXIT"
            self.error = WorkerError(type="CommandError", message=f"its command {how}", code=reason, log_tail=("boo",))
            self.end(1, now_s)

    def act(self, world: SimCluster, now_s: float) -> None:
        super().act(world, now_s)
        if self.fails_at_s and now_s > self.fails_at_s and self.moving:
            self.fail(1, now_s)

    def _linger(self, now_s: float) -> None:
        """It may be needed again until it is told to stop."""

    def _prepare(self, generation: int) -> None:
        self.prepared = generation
        self.silent_since_s, self.fails_at_s = -1.0, 0.0
        self.report = StepReport(prepared_generation=generation, lineage=0, applied_step=-1)

    def _run(self, world: SimCluster, record: GenerationRecord, now_s: float) -> None:
        called_away = self.prepared > record.generation
        if called_away or self.generation == record.generation:
            return
        if world.group(record).arrive("meet", self.incarnation):
            self.generation, self.phase = record.generation, WorkerPhase.RUNNING


class CommandSimulation(Simulation):
    """Ends when the ranks worked together for ``work_s`` seconds in all: the command saves as it goes.

    Attributes:
        done_s: how far the command is.
    """

    work_s = 30.0
    done_s = 0.0

    def _start_agent(self, node: str, slots: int) -> None:
        agent = SimAgent(node, self.ids.incarnation(), slots, heard_s=self.now_s, worker_type=CommandWorker)
        self.cluster.agents.append(agent)

    def tick(self) -> None:
        before_s = self.now_s
        super().tick()
        self._together(self.now_s - before_s)
        self._check_restarts()

    def members(self) -> list[CommandWorker]:
        """Who runs the command of the newest generation, the dead included."""
        record = self.state.sole_island.record
        lives = {w.incarnation: w for w in (*self.cluster.workers(), *(w for a in self.cluster.agents for w in a.gone))}
        found = [lives.get(m.incarnation) for m in record.members] if record is not None else []
        return [w for w in found if isinstance(w, CommandWorker)]

    def _together(self, elapsed_s: float) -> None:
        """Ranks work only together: when one ends badly the others soon do; when one hangs all are silent."""
        record = self.state.sole_island.record
        if record is None:
            return
        ranks = [w for w in self.members() if w.generation == record.generation and w.prepared <= record.generation]
        running = [w for w in ranks if w.alive and w.phase is WorkerPhase.RUNNING]
        if any(not w.alive and w.exit_code != 0 for w in ranks):
            for worker in running:
                worker.fails_at_s = worker.fails_at_s or self.now_s + _ECHO_HOLD_S + self.rng.uniform(0.0, 0.5)
        elif any(not w.moving or w.silent_since_s >= 0 for w in running):
            for worker in running:
                worker.silent_since_s = self.now_s if worker.silent_since_s < 0 else worker.silent_since_s
        elif len(ranks) == record.world_size and len(running) == len(ranks):
            self.done_s += elapsed_s
        if self.done_s >= self.work_s and len(ranks) == record.world_size:
            for worker in running:
                if worker.moving and worker.silent_since_s < 0 and not worker.fails_at_s and self.rng.random() < 0.5:
                    worker.phase = WorkerPhase.FINISHED

    def fault(self) -> None:
        running = [w for w in self.members() if w.alive and w.phase is WorkerPhase.RUNNING]
        kind = self.rng.choice(("exit", "signal", "hang", "other", "other", "other"))
        if kind == "other" or not running:
            super().fault()
            return
        worker = self.rng.choice(running)
        if kind == "hang":
            if self.state.spec.spec.launch.hang.watch != NOTHING:
                worker.silent_since_s = self.now_s
        else:
            worker.fail(3 if kind == "exit" else -9, self.now_s)

    def _check_restarts(self) -> None:
        state = self.state
        records = self.check.records
        assert [r.restarts for r in records] == list(range(len(records)))
        assert all((r.rung, r.lineage, r.target_step) == (Rung.RESTART, 1, 0) for r in records[1:])
        assert len({fault.generation for fault in state.restarts.user}) == len(state.restarts.user)
        assert not state.checkpoints
