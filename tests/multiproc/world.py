"""A world for tests: ranks as real processes under a tiny controller that only knows records; as threads: ``threads``.

Every world has a deadline; when it passes, or when anything fails, the stacks of all ranks are printed. An exception in
a rank is raised again in the test, with the rank.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from multiproc.armed_faults import ArmedFaults, Fault
from multiproc.life import Life, Program, fork_server, run_program
from multiproc.threads import WorldError, store
from trainctl.controller.domain.ancestry import Ancestor, gone_back
from trainctl.controller.domain.goodput import Goodput
from trainctl.controller.domain.job_state import IslandState, JobState
from trainctl.controller.domain.reconcile.evidence import newest_vote, settle, snapshots_in_memory, starters
from trainctl.controller.domain.reconcile.fencing import fenced
from trainctl.core.codec import from_wire, to_wire
from trainctl.core.records.generation import CheckpointRef, GenerationRecord, Member, Rung
from trainctl.core.records.snapshot import SnapshotRef, SnapshotsMade
from trainctl.core.records.spec import JobMetadata, JobSpec, TrainJob
from trainctl.core.records.step import Outcome, Phase, StepFigures, StepReport
from trainctl.core.records.worker import (
    CheckpointReport,
    Instruction,
    WorkerDesired,
    WorkerError,
)
from trainctl.core.system.memory_folder import (
    FAILURE_DOMAIN_VARIABLE,
    MEMORY_VARIABLE,
    claim_memory_folder,
    memory_folder,
    remove_memory_folder,
)
from trainctl.parallel.bridge import (
    Checkpointed,
    Failed,
    Figures,
    Finished,
    Instruct,
    MessageReader,
    Noticed,
    Ready,
    Recovered,
    Reported,
    Running,
    Snapshotted,
    encode,
)
from waiting import PATIENCE_S

ISLAND = "island-0"
LIKE_THE_REAL_WORKER: Mapping[str, str] = {"OMP_NUM_THREADS": "1", "RES_OPTIONS": "timeout:1 attempts:3"}
"""Of its environment: how many threads compute, how names are looked up."""


class ProcessWorld:
    """Worker processes and a controller of one island: level-triggered, but without store, agents and time-outs."""

    def __init__(
        self,
        folder: Path,
        size: int,
        program: Program,
        *,
        options: Mapping[str, Any] | None = None,
        spec: JobSpec | None = None,
        faults: Sequence[Fault] = (),
        nodes: Sequence[str] = (),
        domains: Mapping[str, str] | None = None,
        deadline_s: float = PATIENCE_S,
    ) -> None:
        self._context = fork_server()
        self._folder = folder
        self._memory = memory_folder(folder)
        self._program = program
        self._options = {**(options or {}), "folder": str(folder)}
        self._spec = to_wire(TrainJob(metadata=JobMetadata(name="test"), spec=spec or JobSpec()))
        self.faults = ArmedFaults(folder / "fault-marks", faults)
        self._env = {**self.faults.environment, **LIKE_THE_REAL_WORKER}
        self._keep = (spec or JobSpec()).checkpoint.keep.last
        self._store = store()
        self._changed = threading.Condition()
        self._deadline = time.monotonic() + deadline_s
        self.nodes = list(nodes)  # of each slot, with memory for snapshots; otherwise one without
        self.domains = dict(domains or {})  # of nodes
        self._incarnations = self.generation = 0
        self.record: GenerationRecord | None = None
        self.evidence: Outcome | None = None
        self.proposed: tuple[int, ...] | None = None
        self.lives: dict[int, Life] = {}
        self.past: list[Life] = []
        self.figures: dict[tuple[int, int], StepFigures] = {}
        self.figure_log: list[StepFigures] = []
        self.current: list[CheckpointRef] = []
        """Checkpoints that became current, oldest first; of these the job keeps the newest."""
        self.rejected: list[tuple[CheckpointReport, str]] = []
        """Those that did not, and why."""
        self.checkpoints: list[CheckpointReport] = []
        self.notices: list[str] = []
        self.snapshots: dict[int, SnapshotsMade] = {}
        """What the worker in a slot told last of the snapshots that it completes."""
        self.snapshot_log: list[tuple[int, SnapshotsMade]] = []
        """All that was told of them, with the slot."""
        self.lost_snapshots: dict[str, list[str]] = {}
        """What workers said of snapshots that they could not load, by attempt."""
        self._ancestors: tuple[Ancestor, ...] = ()
        self.refused: dict[str, str] = {}
        """What workers found in checkpoints that are damaged, by URI."""
        self.records: list[GenerationRecord] = []
        self.replace_lost = True
        self.intervals_s: dict[int, float] = {}
        """Time between checkpoints that the worker in a slot is told."""
        self.snapshot_intervals_s: dict[int, float] = {}
        """The same of snapshots."""
        self.resume: CheckpointRef | None = None
        assert not claim_memory_folder(self._memory)
        for slot in range(size):
            self.start(slot)

    # -- workers -----------------------------------------------------------------------------------------------------

    def start(self, slot: int) -> Life:
        """A new life in ``slot``, told to stand by."""
        self._incarnations += 1
        ours, theirs = socket.socketpair()
        page = str(self._folder / f"page-{slot}-{self._incarnations}")
        stacks = str(self._folder / f"stacks-{slot}-{self._incarnations}")
        process = self._context.Process(
            target=run_program,
            args=(self._program, theirs, page, stacks, self._env_of(slot), self._options),
            daemon=True,
        )
        life = Life(slot, self._incarnations, process, ours, page, stacks)
        self._tell(life, Instruction.STANDBY)
        process.start()
        theirs.close()
        if slot in self.lives:
            self.past.append(self.lives[slot])
        self.lives[slot] = life
        threading.Thread(target=self._listen, args=(life,), daemon=True).start()
        return life

    def memory(self, node: str) -> Path:
        """Where a node keeps snapshots."""
        return self._memory / node

    def node(self, slot: int) -> str:
        """Where a slot is."""
        return self.nodes[slot] if self.nodes else "node-0"

    def forget_node(self, node: str, instead: str) -> None:
        """A node is lost with its memory; its slots are on another one from now on."""
        shutil.rmtree(self.memory(node))
        self.nodes = [instead if name == node else name for name in self.nodes]

    def _env_of(self, slot: int) -> Mapping[str, str]:
        memory = str(self.memory(self.node(slot)) if self.nodes else "")
        domain = self.domains.get(self.node(slot), "")
        return {**self._env, MEMORY_VARIABLE: memory, FAILURE_DOMAIN_VARIABLE: domain}

    def _tell(
        self, life: Life, instruction: Instruction, *, generation: int = 0, save: bool = False, hold: bool = False
    ) -> None:
        life.told = (instruction, generation, save, hold)
        desired = WorkerDesired(
            job_uid="job-1",
            job_name="test",
            island=ISLAND,
            slot=life.slot,
            incarnation=life.incarnation,
            instruction=instruction,
            generation=generation,
            record=self.record if instruction is Instruction.RUN else None,
            spec=self._spec,
            workdir=str(self._folder),
            checkpoint_on_stop=save,
            hold=hold,
            checkpoint_interval_s=self.intervals_s.get(life.slot, 0.0),
            snapshot_interval_s=self.snapshot_intervals_s.get(life.slot, 0.0),
            kept_checkpoints=self._kept(life) if instruction in (Instruction.RUN, Instruction.STOP) else (),
        )
        with contextlib.suppress(OSError):  # it may have died
            life.sock.sendall(encode(Instruct(desired)))

    def _kept(self, life: Life) -> tuple[str, ...]:
        """What the worker of rank 0 is told."""
        removes = self.record is not None and self.record.members[0].incarnation == life.incarnation
        return tuple(ref.attempt for ref in self._sources()[-self._keep :]) if removes else ()

    def _decide_on(self, report: CheckpointReport) -> None:
        """Makes it current, as the real controller does, and tells rank 0, beside what that was told last."""
        if report.ref is None:
            return
        if refusal := fenced(self._state(), report):
            self.rejected.append((report, refusal[0]))
            return
        self.current.append(report.ref)
        for life in self.lives.values():
            if life.told is not None and self._kept(life):
                instruction, generation, save, hold = life.told
                self._tell(life, instruction, generation=generation, save=save, hold=hold)

    def _state(self) -> JobState:
        """As much of the job as the decision about a checkpoint looks at."""
        job = from_wire(TrainJob, self._spec)
        return JobState(
            uid="job-1",
            spec=job,
            user_spec=job,
            workdir=str(self._folder),
            submitted_s=0.0,
            goodput=Goodput(start_us=0, since_us=0),
            islands=(IslandState(id=ISLAND, slots=(), record=self.record),),
            checkpoints=tuple(self._sources()),
        )

    def _sources(self) -> list[CheckpointRef]:
        """What it can go back to, oldest first."""
        return [ref for ref in self.current if ref.uri not in self.refused]

    def _listen(self, life: Life) -> None:
        reader = MessageReader()
        while True:
            try:
                data = life.sock.recv(65536)
            except OSError:
                data = b""
            with self._changed:
                for message in reader.feed(data):
                    self._note(life, message)
                self._changed.notify_all()
            if not data:
                life.process.join()
                with self._changed:
                    self._changed.notify_all()
                return

    def _note(self, life: Life, message: object) -> None:
        match message:
            case Ready():
                life.ready = True
            case Reported(report):
                life.report = report
            case Running(generation):
                life.running = generation
            case Figures(figures):
                for figure in figures:
                    self.figures[figure.lineage, figure.step] = figure
                    self.figure_log.append(figure)
            case Checkpointed(checkpoint):
                self.checkpoints.append(checkpoint)
                self._decide_on(checkpoint)
            case Recovered(recovery):
                life.recoveries.append(recovery)
            case Snapshotted(made):
                self.snapshots[life.slot] = made
                self.snapshot_log.append((life.slot, made))
            case Noticed(text):
                self.notices.append(text)
            case Failed(error):
                life.error = error
            case Finished():
                life.finished = True

    # -- controller --------------------------------------------------------------------------------------------------

    def run(self, *, shrink: bool = False) -> None:
        """Keeps the world going until all members finished."""
        self.replace_lost = not shrink
        self.propose(sorted(self.lives))
        self.until(lambda: all(life.finished for life in self.members()))
        self.stop()

    def members(self) -> list[Life]:
        """Lives in the newest generation, committed or proposed."""
        slots = self.proposed if self.proposed is not None else sorted(self.lives)
        return [self.lives[slot] for slot in slots]

    def until(self, condition: Callable[[], bool]) -> None:
        """Supervises until ``condition``, which is looked at after every message."""
        with self._changed:
            while not condition():
                self._supervise()
                if condition():
                    return
                if time.monotonic() > self._deadline:
                    self._fail("the deadline passed")
                self._changed.wait(0.05)

    def _supervise(self) -> None:
        for life in self.members():
            if life.error is not None and not self._refuses(life.error):
                self._fail(f"worker {life.slot} raised {life.error.type}: {life.error.message}\n{life.error.traceback}")
        lost = [life.slot for life in self.members() if not life.alive and not life.finished]
        if lost:
            self.exclude(lost)
        elif self.proposed is not None and self._all_reported():
            self._commit()

    def _refuses(self, error: WorkerError) -> bool:
        """Whether it is only that a checkpoint or snapshot is damaged; that one is not gone back to again."""
        if error.checkpoint:
            self.refused[error.checkpoint] = error.message
        snapshot = self.record.snapshot if self.record is not None and error.code == "SNAPSHOT_LOST" else None
        if snapshot is not None:
            said = self.lost_snapshots.setdefault(snapshot.attempt, [])
            said += [error.message] if error.message not in said else []
        return bool(error.checkpoint) or snapshot is not None

    def exclude(self, lost: Sequence[int]) -> None:
        """Proposes a generation without these lives; others take their slots unless the world shrinks."""
        slots = [life.slot for life in self.members()]
        if self.replace_lost:
            for slot in lost:
                self.start(slot)
        else:
            slots = [slot for slot in slots if slot not in lost]
            for slot in lost:
                self.past.append(self.lives.pop(slot))
        self.propose(slots)

    def grow(self, slot: int) -> None:
        """Proposes a generation with one more worker."""
        self.start(slot)
        self.propose(sorted(self.lives))

    def propose(self, slots: Sequence[int]) -> None:
        """Begins a generation with these slots."""
        self.generation += 1
        self.proposed = tuple(slots)
        for slot in slots:
            self._tell(self.lives[slot], Instruction.PREPARE, generation=self.generation)

    def save_every(self, intervals_s: Mapping[int, float]) -> None:
        """Tells members, by slot, how long it is from one checkpoint to the next; those left out count steps."""
        self.intervals_s = dict(intervals_s)
        self._tell_members()

    def snapshot_every(self, intervals_s: Mapping[int, float]) -> None:
        """The same of snapshots in the memory of the nodes."""
        self.snapshot_intervals_s = dict(intervals_s)
        self._tell_members()

    def _tell_members(self) -> None:
        if self.proposed is None:
            for life in self.members():
                self._tell(life, Instruction.RUN, generation=self.generation)

    def hold(self, *, save: bool = False) -> int:
        """Lets all members wait at the next step boundary; returns the step after which they do."""
        for life in self.members():
            self._tell(life, Instruction.RUN, generation=self.generation, save=save, hold=True)
        self.until(lambda: all(life.progress().phase is Phase.HELD for life in self.members()))
        (step,) = {life.progress().step for life in self.members()}
        return step

    def _all_reported(self) -> bool:
        reports = [life.report for life in self.members()]
        return all(report is not None and report.prepared_generation == self.generation for report in reports)

    def _commit(self) -> None:
        slots = self.proposed or ()
        reports = {slot: report for slot in slots if (report := self.lives[slot].report) is not None}
        self.record = self._decide(slots, reports)
        self.records.append(self.record)
        self.evidence = None
        self.proposed = None
        for slot in slots:
            self._tell(self.lives[slot], Instruction.RUN, generation=self.generation)

    def _decide(self, slots: Sequence[int], reports: Mapping[int, StepReport]) -> GenerationRecord:
        previous = self.record
        if previous is None:
            return self._first(slots)
        for report in reports.values():
            self.evidence = newest_vote(previous, self.evidence, report)
        settled = settle(previous, self.evidence, reports)
        if settled.holders:
            return self._record(
                slots,
                lineage=settled.lineage,
                target_step=settled.step,
                rung=Rung.PEER,
                outcome=settled.outcome,
                holders=tuple(index for index, slot in enumerate(slots) if slot in settled.holders),
            )
        saved = self.saved() or self.resume
        snapshot = self._snapshot(previous, reports)
        if snapshot is not None and (saved is None or snapshot.step > saved.step):
            return self._record(
                slots,
                lineage=previous.lineage + 1,
                target_step=snapshot.step,
                rung=Rung.SNAPSHOT,
                snapshot=snapshot,
                checkpoint=saved,
            )
        if saved is None:
            makers = starters(reports)
            return self._record(
                slots,
                lineage=previous.lineage + 1,
                target_step=0,
                rung=Rung.START,
                holders=tuple(index for index, slot in enumerate(slots) if slot in makers),
            )
        return self._record(
            slots, lineage=previous.lineage + 1, target_step=saved.step, rung=Rung.CHECKPOINT, checkpoint=saved
        )

    def _first(self, slots: Sequence[int]) -> GenerationRecord:
        """From the checkpoint in ``resume``, or from nothing."""
        ref = self.resume
        if ref is None:
            return self._record(slots, lineage=1, target_step=0, rung=Rung.START)
        return self._record(slots, lineage=ref.lineage + 1, target_step=ref.step, rung=Rung.START, checkpoint=ref)

    def _snapshot(self, previous: GenerationRecord, reports: Mapping[int, StepReport]) -> SnapshotRef | None:
        """The newest of which every part is on some node."""
        by_node = [(self.node(slot), report) for slot, report in reports.items()]
        found = snapshots_in_memory(
            by_node, lineage=previous.lineage, ancestors=self._ancestors, lost=self.lost_snapshots
        )
        whole = [
            ref
            for ref, held in found
            if {part for one in held.values() for part in one.held} == set(range(next(iter(held.values())).parts))
        ]
        return whole[-1] if whole else None

    def saved(self) -> CheckpointRef | None:
        """The current checkpoint."""
        sources = self._sources()
        return sources[-1] if sources else None

    def _record(self, slots: Sequence[int], **fields: Any) -> GenerationRecord:
        members = tuple(
            Member(
                global_rank=rank,
                slot=slot,
                incarnation=self.lives[slot].incarnation,
                node=self.node(slot),
                agent_incarnation=1,
                address="127.0.0.1",
            )
            for rank, slot in enumerate(slots)
        )
        saved = self.saved()
        if self.record is not None and fields["lineage"] != self.record.lineage:
            self._ancestors = gone_back(self._ancestors, lineage=self.record.lineage, step=fields["target_step"])
        return GenerationRecord(
            job_uid="job-1",
            island=ISLAND,
            job_generation=1,
            generation=self.generation,
            predecessor=self.record.generation if self.record else 0,
            epoch=1,
            nonce=f"n{self.generation}",
            members=members,
            store_address=f"127.0.0.1:{self._store.port}",
            checkpointed_step=saved.step if saved else -1,
            reporter=self.record.members[0].incarnation if self.record else 0,
            **fields,
        )

    def stop(self, *, save: bool = False) -> None:
        """Tells all members to stop and waits for their exit."""
        for life in self.members():
            self._tell(life, Instruction.STOP, generation=self.generation, save=save)
        with self._changed:
            while any(life.alive for life in self.members()):
                if time.monotonic() > self._deadline:
                    self._fail("a worker did not stop")
                self._changed.wait(0.05)
        errors = [life.error for life in self.members() if life.error is not None]
        if errors:
            self._fail(str(errors[0]))

    def close(self) -> None:
        """Kills what is left; for the end of a test."""
        for life in [*self.lives.values(), *self.past]:
            if life.process.is_alive():
                life.kill()
            life.process.join()
            life.sock.close()
        remove_memory_folder(self._memory)

    def __enter__(self) -> ProcessWorld:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self.close()
        if error is None:
            self.faults.check()

    def _fail(self, why: str) -> None:
        lines = [why]
        for life in [*self.lives.values(), *self.past]:
            progress = life.progress()
            lines.append(f"worker {life.slot}.{life.incarnation} pid {life.pid} alive {life.alive}: {progress}")
            if life.alive and progress.phase is not Phase.BOOTING:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(life.pid, signal.SIGUSR1)
        until = time.monotonic() + 1.0
        for life in self.lives.values():
            while life.alive and not Path(life.stacks).stat().st_size and time.monotonic() < until:
                life.process.join(0.05)
            lines.append(f"-- stacks of worker {life.slot}\n{Path(life.stacks).read_text()}")
        raise WorldError("\n".join(lines))
