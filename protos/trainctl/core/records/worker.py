"""What an agent and its controller tell each other about workers: desired on one side, observed on the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from trainctl.core.records.generation import CheckpointRef, GenerationRecord
from trainctl.core.records.part import PartTimes, Transfer
from trainctl.core.records.snapshot import SnapshotsMade
from trainctl.core.records.step import Phase, StepReport
from trainctl.core.records.word import Word


class WorkerPhase(Word):
    """Life of a worker process as its agent sees it."""

    STARTING = "starting"
    READY = "ready"
    RUNNING = "running"
    FINISHED = "finished"
    EXITED = "exited"


class Instruction(StrEnum):
    """What the controller wants of a worker now."""

    STANDBY = "standby"
    """Boot, build the model, wait."""
    PREPARE = "prepare"
    """Stop waiting for generation < g, keep the state, report; whoever still boots reports when it is ready."""
    RUN = "run"
    """Carry out the committed record of g and train."""
    STOP = "stop"
    """End in good order."""
    KILL = "kill"
    """SIGKILL it and report its exit: it is condemned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerDesired:
    """The state the controller wants one worker to be in. Level-triggered: always the whole truth, safe to repeat.

    Attributes:
        job_uid: the job.
        job_name: for logs and file names.
        island: island id.
        slot: worker slot of the job.
        incarnation: worker life; an agent never runs two lives of one slot at once.
        instruction: what to do.
        generation: the ``g`` that PREPARE or RUN is about.
        record: with RUN, the committed record.
        spec: the job spec as its wire dict (YAML spelling).
        workdir: URI under which the job keeps checkpoints and artifacts.
        grace_s: with STOP, seconds until SIGKILL.
        checkpoint_on_stop: with STOP or a hold, save a checkpoint at the step boundary first.
        hold: with RUN, wait at the next step boundary, all ranks at the same; only STOP or a newer generation ends it.
        checkpoint_interval_s: time from the beginning of a checkpoint to that of the next; 0: ``spec.checkpoint``'s
            ``interval_steps`` counts.
        snapshot_interval_s: the same of snapshots in the memory of the nodes; 0: ``spec.checkpoint.snapshots`` has
            steps to count, or there are none.
        kept_checkpoints: for the worker of rank 0: attempts that the job may go back to, the current one last. Only
            what is older than that, and not among them, may be removed. Empty: nothing may.
        read_back: for the worker of rank 0: attempt whose every byte it is to look at, and report on
            (``CheckpointReport.read_back``), before those that are older may go. Empty: none.
    """

    job_uid: str
    job_name: str
    island: str
    slot: int
    incarnation: int
    instruction: Instruction
    generation: int = 0
    record: GenerationRecord | None = None
    spec: Mapping[str, object] = field(default_factory=dict[str, object])
    workdir: str = ""
    grace_s: float = 10.0
    checkpoint_on_stop: bool = False
    hold: bool = False
    checkpoint_interval_s: float = 0.0
    snapshot_interval_s: float = 0.0
    kept_checkpoints: tuple[str, ...] = ()
    read_back: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One sample of a worker's progress page.

    Attributes:
        generation: ``g`` it works in; 0 before the first.
        step: last step voted.
        phase: where it is.
        phase_age_s: seconds since the phase changed.
        alive_age_s: seconds since the worker last touched its page, also while it waits in a collective.
        transfer: the save or load that goes on, whatever the phase; None while there is none.
    """

    generation: int = 0
    step: int = 0
    phase: Phase = Phase.BOOTING
    phase_age_s: float = 0.0
    alive_age_s: float = 0.0
    transfer: Transfer | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerError:
    """A Python exception that ended a worker: enough to explain it without the logs.

    Attributes:
        type: exception class name.
        message: its text.
        traceback: formatted, the newest frames last, at most 8 KiB.
        step: step it happened in.
        code: stable reason such as ``USER_EXCEPTION``, ``DATA_UNUSABLE``, ``CHECKPOINT_UNUSABLE``.
        log_tail: last lines the worker printed.
        hint: what the person can do, if whoever raised it knew; empty otherwise.
        checkpoint: URI of the checkpoint of this job that it found damaged; empty if it is no such error.
    """

    type: str
    message: str
    traceback: str = ""
    step: int = 0
    code: str = "USER_EXCEPTION"
    log_tail: tuple[str, ...] = ()
    hint: str = ""
    checkpoint: str = ""

    @property
    def lines(self) -> tuple[str, ...]:
        """What the worker prints about it: the traceback, or where that says nothing, message and hint."""
        if self.traceback:
            return tuple(self.traceback.rstrip().splitlines())
        return tuple(f"error: {self.message}".splitlines()) + ((f"hint: {self.hint}",) if self.hint else ())


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerObserved:
    """What an agent sees of one worker.

    Attributes:
        job_uid: the job.
        slot: worker slot.
        incarnation: worker life.
        pid: process id; unchanged for as long as the worker lives.
        phase: life of the process.
        generation: committed generation it runs in, 0 before the first.
        progress: newest sample of its page; the last one before the exit once it ended.
        report: answer to the newest PREPARE, if it has answered.
        exit_code: as a shell would show it: -9 for SIGKILL; None while it lives.
        error: the exception that ended it, if it was one.
        exited_age_s: seconds since it ended, 0 while it lives.
        rss_bytes: resident memory.
        steps: optimizer steps of the run, as the program says; 0 before it did, and where it counts none.
        notices: what the worker wants people to know although it goes on, oldest first, the newest 16.
        snapshots: those in the memory of nodes, if it is the worker that completes them on its node.
    """

    job_uid: str
    slot: int
    incarnation: int
    pid: int
    phase: WorkerPhase
    generation: int = 0
    progress: Progress = Progress()
    report: StepReport | None = None
    exit_code: int | None = None
    error: WorkerError | None = None
    exited_age_s: float = 0.0
    rss_bytes: int = 0
    steps: int = 0
    notices: tuple[str, ...] = ()
    snapshots: SnapshotsMade | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointReport:
    """A complete checkpoint: its manifest is written; the controller's fenced transaction makes it current.

    ``error`` is set instead of ``ref`` when the attempt failed; training goes on. With ``read_back`` it is news of a
    checkpoint that was complete before: every byte of it was read, and ``error`` says what is wrong. ``age_s`` is how
    long ago the agent heard of it when it sent this: seconds of its own, which no clock that is wrong can spoil.
    """

    job_uid: str
    island: str
    generation: int
    step: int
    lineage: int
    ref: CheckpointRef | None = None
    error: str = ""
    seconds: float = 0.0
    """From the step boundary at which it was begun until it was complete."""
    size_bytes: int = 0
    stall_s: float = 0.0
    """How much of that training waited for it, on the rank that waited longest."""
    bottleneck: str = ""
    """Which rank and stage it waited for longest, for people."""
    age_s: float = 0.0
    cause: str = ""
    """Of a failure, one word of ``checkpoint.monitor.CAUSES``."""
    parts: tuple[PartTimes, ...] = ()
    """What each rank wrote, and how long its stages took; of a failed one those that were written."""
    seal_s: float = 0.0
    """From the last part until the root manifest was there."""
    pool_bytes: int = 0
    """Host memory that copies of the state occupy, on the rank where it is most."""
    read_back: bool = False
    """Not that it is complete is told, but what its bytes are like."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """How the ranks of a generation came by a checkpoint's state; the worker of rank 0 reports for all.

    Attributes:
        uri: of the checkpoint; ``snapshot://...`` of a snapshot in the memory of the nodes.
        step: of the state.
        seconds: until the last rank had it.
        parts: what each rank read, and how long its stages took.
        bottleneck: which rank, stage and storage it waited for longest, for people.
        damaged: of a snapshot: what was not as it was saved in the memory of which node; another node's copy was taken.
    """

    uri: str
    step: int
    seconds: float
    parts: tuple[PartTimes, ...] = ()
    bottleneck: str = ""
    damaged: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryReport:
    """What one worker did to enter a generation, with seconds for each phase and bytes for each source."""

    job_uid: str
    island: str
    generation: int
    global_rank: int
    slot: int
    rebuild_s: float = 0.0
    restore_s: float = 0.0
    first_step_s: float = 0.0
    received_bytes: Mapping[str, int] = field(default_factory=dict[str, int])
    """Bytes this worker received, keyed by source: ``rank 2`` or a checkpoint file's URI."""
    applied_open_step: bool = False
    """The worker applied the target step from its retained gradient."""
    load: LoadReport | None = None
    """Of rank 0, where the state came from a checkpoint or a snapshot."""
