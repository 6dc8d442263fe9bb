"""The smaller records inside a job's state; those that the API shows have the shape of their messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from trainctl.core.records.generation import CheckpointRef
from trainctl.core.records.worker import WorkerError


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryCandidate:
    """One rung of the ladder as it was judged: usable or not, what it would have cost, and why."""

    rung: str
    eligible: bool
    cost_s: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """One recovery or resize, from the fault to the first new committed step (message ``Recovery``).

    Attributes:
        generation: the generation that ended it; grows while further faults interrupt it.
        fault: what happened, in words.
        rung: how ranks without the state obtained it.
        reason: why that rung.
        started_s: when the fault happened, Unix seconds.
        phases_s: seconds by phase: detect, stop, boot, decide, rendezvous, restore, first_step; total is their sum.
        copied_bytes: bytes copied, by ``source -> destination``.
        candidates: every rung with cost and reason.
        target_step: step that training went on from.
        lost_steps: committed steps that were thrown away.
        slots: worker slots hit.
        planned: a change that somebody asked for, or growth; no fault was behind it.
    """

    generation: int
    fault: str
    rung: str = ""
    reason: str = ""
    started_s: float = 0.0
    phases_s: Mapping[str, float] = field(default_factory=dict[str, float])
    copied_bytes: Mapping[str, int] = field(default_factory=dict[str, int])
    candidates: tuple[RecoveryCandidate, ...] = ()
    target_step: int = 0
    lost_steps: int = 0
    slots: tuple[int, ...] = ()
    planned: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryMarks:
    """When the parts of the recovery in progress ended, Unix seconds; 0 while they have not.

    Attributes:
        faulted_s: the fault (for a frozen worker: its last sign of life).
        detected_s: reconcile saw it.
        stopped_s: all survivors had stopped and reported.
        booted_s: all newcomers were ready and had reported.
        committed_s: the generation record was committed.
        entered_s: all members were seen training in it.
        rebuild_s: longest group rebuild reported by a member.
        restore_s: longest restore reported by a member.
        survivors: incarnations that were alive when the fault was seen.
    """

    faulted_s: float
    detected_s: float
    stopped_s: float = 0.0
    booted_s: float = 0.0
    committed_s: float = 0.0
    entered_s: float = 0.0
    rebuild_s: float = 0.0
    restore_s: float = 0.0
    survivors: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """Something true or false of a job beside its phase (message ``Condition``)."""

    type: str
    status: str
    reason: str
    message: str
    since_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFailure:
    """Why a job failed, complete enough to act on without the logs.

    Attributes:
        code: stable reason such as ``USER_EXCEPTION``.
        message: one sentence with job, generation, step, rank and node where known.
        hint: what to do.
        slot: worker slot it came from, -1 if none.
        global_rank: its rank, -1 if none.
        node: its node.
        generation: generation it trained in.
        error: the exception, if it was one.
    """

    code: str
    message: str
    hint: str = ""
    slot: int = -1
    global_rank: int = -1
    node: str = ""
    generation: int = 0
    error: WorkerError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedCheckpoint:
    """A checkpoint that a worker found damaged: it is never gone back to, nor made current, again.

    Attributes:
        ref: which one.
        reason: what was found, where.
        at_s: when, Unix seconds.
    """

    ref: CheckpointRef
    reason: str
    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class UserFault:
    """One exception of the user's code, remembered to recognise it when it comes again."""

    type: str
    message: str
    step: int
    generation: int
    slot: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Restarts:
    """Use of the restart budgets: exceptions of the user's code per job, process crashes (Unix seconds) per window.

    ``incident`` is the newest generation whose end was charged: what fails after it is an echo of the same, if the job
    runs a command, or if the storage was away.
    """

    total: int = 0
    user: tuple[UserFault, ...] = ()
    process_s: tuple[float, ...] = ()
    incident: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelRequest:
    """The user wants the job to end: with a checkpoint first or not, and within how many seconds."""

    requested_s: float
    checkpoint: bool = True
    grace_s: float = 30.0


class HaltKind(StrEnum):
    """What follows when all workers of a job have been stopped on request."""

    PAUSE = "pause"
    """They give their slots back, and the job waits to be resumed."""
    RESTART = "restart"
    """New ones take their places."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HaltRequest:
    """The user wants all workers to be stopped, their state saved first.

    Attributes:
        kind: what follows.
        requested_s: when.
        saves: wait until the job trains and save what it holds; False: it goes on from what is committed already.
        allow_loss: where it cannot be saved, go on from the newest committed checkpoint instead of calling it off.
        held_s: since when the workers wait at a step boundary, 0 before.
        failed_step: newest step whose save failed, -1 if none did.
        stopping: everything is saved that will be: the workers are on their way out.
        resume: a pause that the user has taken back while they were.
    """

    kind: HaltKind
    requested_s: float
    saves: bool = True
    allow_loss: bool = False
    held_s: float = 0.0
    failed_step: int = -1
    stopping: bool = False
    resume: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackRequest:
    """The user wants the job to go on from an older checkpoint; newer ones are no longer of its lineage."""

    requested_s: float
    checkpoint: CheckpointRef


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletionRequest:
    """The user wants nothing to be left of the job, once it has ended; its checkpoints may stay. ``by``: their name."""

    requested_s: float
    keep_checkpoints: bool = False
    by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainProgress:
    """Newest figures: telemetry, never a basis of a decision about state; may be older after a controller restart.

    Attributes:
        lineage: lineage of ``step``.
        step: last committed step known.
        cursor: samples consumed after it.
        tokens: trained in the surviving lineage.
        step_tokens: tokens of the newest step.
        loss: of the newest step that was not skipped, nats per token; None before there was one.
        eval_loss: newest held-out loss.
        eval_step: step it belongs to.
        learning_rate: of the newest step.
        recent_step_s: durations of the newest steps, oldest first, at most ``RECENT_STEPS``.
        skipped: steps up to ``step`` whose gradient was thrown away.
        missed: steps up to ``step`` whose figures are not counted yet (``step_ranges``): another controller has them.
        updated_s: when the newest figures came; of those that were read in a file, when their step was committed.
    """

    lineage: int = 0
    step: int = 0
    cursor: int = 0
    tokens: int = 0
    step_tokens: int = 0
    loss: float | None = None
    eval_loss: float | None = None
    eval_step: int = 0
    learning_rate: float = 0.0
    recent_step_s: tuple[float, ...] = ()
    skipped: int = 0
    missed: tuple[int, ...] = ()
    updated_s: float = 0.0


RECENT_STEPS = 32
