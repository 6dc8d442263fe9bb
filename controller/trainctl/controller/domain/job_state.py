"""The persisted truth of one job: everything reconcile decides from, beside what it sees of the cluster."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from trainctl.controller.domain.ancestry import Ancestor
from trainctl.controller.domain.checkpoint_figures import CheckpointFigures, Load, Save
from trainctl.controller.domain.goodput import Goodput
from trainctl.controller.domain.job_records import (
    CancelRequest,
    Condition,
    DeletionRequest,
    HaltRequest,
    JobFailure,
    Recovery,
    RecoveryMarks,
    RefusedCheckpoint,
    Restarts,
    RollbackRequest,
    TrainProgress,
)
from trainctl.controller.domain.save_cost import SaveCost
from trainctl.controller.domain.save_interval import CheckpointInterval
from trainctl.controller.domain.snapshots import SnapshotFigures
from trainctl.controller.domain.states import ALIVE, AttemptPhase, GenerationPhase, JobPhase, SlotState
from trainctl.core.codec import from_wire, to_wire
from trainctl.core.ids import DEFAULT_TENANT
from trainctl.core.records.generation import CheckpointRef, GenerationRecord, Member
from trainctl.core.records.spec import TrainJob
from trainctl.core.records.step import Outcome


class Cause(StrEnum):
    """Why a generation is proposed."""

    START = "start"
    FAULT = "fault"
    GROW = "grow"
    SHRINK = "shrink"
    RESIZE = "resize"
    """Workers leave in good order: fewer are wanted, or their node is drained."""
    RESTART = "restart"
    ROLLBACK = "rollback"
    RELEASE = "release"
    """What the members were held for is not done after all."""


class Hold(StrEnum):
    """Why the members of a committed generation are to wait at the next step boundary; it ends with the generation."""

    NONE = ""
    RESIZE = "resize"
    SAVE = "save"
    """They save a checkpoint there, and are stopped when it is committed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One worker slot of an island.

    A slot is *bound* while it has a place on an agent (``agent_incarnation`` not 0), also when it is empty between two
    lives; a bound slot counts as used on that agent.

    Attributes:
        index: worker slot of the job; the rank order is the slot order.
        state: what is in it.
        incarnation: the newest worker life put in it.
        node: where it is bound, empty if it is not.
        agent_incarnation: to which agent life.
        address: host that other members reach it at.
        pid: of the worker, 0 until seen.
        since_s: when the state began.
        started_s: when this life was put in it.
        missing_since_s: since when a connected agent no longer reports the worker, 0 if it does.
        reason: why it is condemned or draining.
    """

    index: int
    state: SlotState = SlotState.EMPTY
    incarnation: int = 0
    node: str = ""
    agent_incarnation: int = 0
    address: str = ""
    pid: int = 0
    since_s: float = 0.0
    program_steps: int = 0
    started_s: float = 0.0
    missing_since_s: float = 0.0
    reason: str = ""

    @property
    def bound(self) -> bool:
        """It has a place on an agent."""
        return self.agent_incarnation != 0

    @property
    def alive(self) -> bool:
        """Its worker may be, or become, a member of a generation."""
        return self.state in ALIVE

    def as_member(self, global_rank: int) -> Member:
        """The worker in it as a rank of an island."""
        return Member(
            global_rank=global_rank,
            slot=self.index,
            incarnation=self.incarnation,
            node=self.node,
            agent_incarnation=self.agent_incarnation,
            address=self.address,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A generation being prepared.

    Attributes:
        generation: its number.
        slots: slots that shall take part, ascending; it is committed when each has a member that reported.
        members: those that have been counted in so far; losing one aborts the proposal.
        cause: why.
        reason: one sentence.
        since_s: when it was proposed.
        short_since_s: since when a slot of it has no place on any agent, 0 if all have one.
    """

    generation: int
    slots: tuple[int, ...]
    members: tuple[Member, ...]
    cause: Cause
    reason: str
    since_s: float
    short_since_s: float = 0.0

    def takes(self, slot: int) -> bool:
        """Whether a slot shall take part."""
        at = bisect_left(self.slots, slot)
        return at < len(self.slots) and self.slots[at] == slot


@dataclass(frozen=True, slots=True, kw_only=True)
class IslandState:
    """One island: its slots, its generation and what is settled about its state.

    Attributes:
        id: ``island-0``.
        slots: all slots it may ever use, by index.
        generation: highest number used so far, 0 before the first.
        generation_phase: phase of that number.
        record: the last committed generation record.
        ancestors: lineages that the record's one descends from, oldest first.
        entered: all members of ``record`` have been seen training in it.
        proposal: the generation being prepared, if one is.
        evidence: newest vote beyond ``record.target_step`` that a worker reported: it is honoured even if that worker
            dies before the next commit.
        committed_s: when ``record`` was committed.
        marks: the recovery in progress, if there is one; its record is the last of ``JobState.recoveries``.
        grow_after_s: no newcomers before this time, after some failed to boot.
        hold: why the members are to wait at the next step boundary.
    """

    id: str
    slots: tuple[Slot, ...]
    generation: int = 0
    generation_phase: GenerationPhase = GenerationPhase.ABORTED
    record: GenerationRecord | None = None
    ancestors: tuple[Ancestor, ...] = ()
    entered: bool = False
    proposal: Proposal | None = None
    evidence: Outcome | None = None
    committed_s: float = 0.0
    marks: RecoveryMarks | None = None
    grow_after_s: float = 0.0
    hold: Hold = Hold.NONE

    def with_slot(self, slot: Slot) -> IslandState:
        """The same island with one slot changed."""
        before, after = self.slots[: slot.index], self.slots[slot.index + 1 :]
        return replace(self, slots=(*before, slot, *after))


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """One job.

    Attributes:
        uid: unique for ever.
        spec: effective spec, every default resolved.
        user_spec: what the user wrote.
        workdir: folder or URI for its checkpoints and artifacts.
        submitted_s: Unix seconds, as all times here.
        owner: name of who submitted it; empty: not known.
        phase: where it is.
        reason: CamelCase word for the phase.
        message: sentence for the phase.
        phase_since_s: when the phase began.
        attempt: number of stays on nodes so far.
        attempt_phase: phase of that one.
        islands: its islands.
        resume: the checkpoint it was told to start from.
        resume_older: what that one descends from, newest first, where the newest was asked for, not this one.
        checkpoints: committed ones of the surviving lineage, oldest first.
        pinned: URIs of those among them that stay, however old.
        doomed: former ones that somebody wants removed: their files may still be there.
        refused: former ones that were found damaged, the newest 64.
        checkpoint_figures: what its saves and loads took.
        loads: the newest loads, oldest first.
        saves: the newest checkpoints that were committed, oldest first.
        snapshot_figures: its snapshots in the memory of nodes.
        progress: newest figures.
        goodput: where the time went.
        restarts: use of the budgets.
        recoveries: newest ``RECOVERIES_KEPT``.
        recovery_count: all that a fault caused.
        save_costs: of the newest checkpoints, where the interval between them is chosen by cost.
        checkpoint_interval: the time between checkpoints that its workers are told; None: they count steps.
        snapshot_interval: the same of snapshots.
        conditions: true or false beside the phase.
        suspects: agent incarnations silent for longer than ``suspect_s``.
        cancel: the user's wish to end it.
        halt: the user's wish to pause or restart it.
        rollback: the user's wish to go back; carried out by the next generation.
        lost_snapshots: attempts in the memory of nodes that could not be loaded, the newest few.
        deletion: the user's wish to have it removed when it has ended.
        failure: why it failed.
        program_steps: steps of the run, as its program says; 0 before it did.
        notices: what workers wanted people to know, each once, the newest 64.
        started_s: first time it trained, 0 before.
        ended_s: when it reached a terminal phase, 0 before.
        epoch: epoch of the leader that reconciled it last.
        epoch_since_s: since when that leader does; deadlines count from here at the earliest, because before it nobody
            passed the instructions on.
    """

    uid: str
    spec: TrainJob
    user_spec: TrainJob
    workdir: str
    submitted_s: float
    goodput: Goodput
    owner: str = ""
    phase: JobPhase = JobPhase.QUEUED
    reason: str = "Submitted"
    message: str = ""
    phase_since_s: float = 0.0
    attempt: int = 0
    attempt_phase: AttemptPhase = AttemptPhase.SUPERSEDED
    islands: tuple[IslandState, ...] = ()
    resume: CheckpointRef | None = None
    resume_older: tuple[CheckpointRef, ...] = ()
    checkpoints: tuple[CheckpointRef, ...] = ()
    pinned: tuple[str, ...] = ()
    doomed: tuple[CheckpointRef, ...] = ()
    refused: tuple[RefusedCheckpoint, ...] = ()
    checkpoint_figures: CheckpointFigures = field(default_factory=CheckpointFigures)
    loads: tuple[Load, ...] = ()
    saves: tuple[Save, ...] = ()
    snapshot_figures: SnapshotFigures = field(default_factory=SnapshotFigures)
    progress: TrainProgress = field(default_factory=TrainProgress)
    restarts: Restarts = field(default_factory=Restarts)
    recoveries: tuple[Recovery, ...] = ()
    recovery_count: int = 0
    save_costs: tuple[SaveCost, ...] = ()
    checkpoint_interval: CheckpointInterval | None = None
    snapshot_interval: CheckpointInterval | None = None
    conditions: tuple[Condition, ...] = ()
    suspects: tuple[int, ...] = ()
    cancel: CancelRequest | None = None
    halt: HaltRequest | None = None
    rollback: RollbackRequest | None = None
    lost_snapshots: tuple[str, ...] = ()
    deletion: DeletionRequest | None = None
    failure: JobFailure | None = None
    program_steps: int = 0
    notices: tuple[str, ...] = ()
    started_s: float = 0.0
    ended_s: float = 0.0
    epoch: int = 0
    epoch_since_s: float = 0.0

    @property
    def name(self) -> str:
        """The job's name, unique among the unfinished jobs of its tenant."""
        return self.spec.metadata.name

    @property
    def steps(self) -> int:
        """Optimizer steps of the run; of a program with a session 0 until that says so, of any other command 0."""
        return self.program_steps if self.spec.spec.command else self.spec.spec.train.steps

    @property
    def tenant(self) -> str:
        """Whose job it is."""
        return self.spec.metadata.tenant

    @property
    def shown_name(self) -> str:
        """Tells it from the jobs of other tenants, where only a name is shown, as in metrics."""
        return self.name if self.tenant == DEFAULT_TENANT else f"{self.tenant}/{self.name}"

    @property
    def sole_island(self) -> IslandState:
        """The one that every job has today: what is asked of it is yet to be asked of each island, or of the job."""
        return self.islands[0]

    def island(self, island_id: str) -> IslandState | None:
        """The island with this id, if there is one."""
        return next((i for i in self.islands if i.id == island_id), None)

    def with_island(self, island: IslandState) -> JobState:
        """The same job with one island changed."""
        return replace(self, islands=tuple(island if i.id == island.id else i for i in self.islands))

    def to_wire(self) -> dict[str, Any]:
        """JSON form for the store."""
        data: dict[str, Any] = to_wire(self)
        return data

    @staticmethod
    def from_wire(data: Any) -> JobState:
        """Reads back what ``to_wire`` made.

        Raises:
            WireError: it does not have the shape of this version.
        """
        return from_wire(JobState, data)


RECOVERIES_KEPT = 64
REFUSED_KEPT = 64


def global_ranks(slots: Iterable[Slot]) -> tuple[Member, ...]:
    """Members in rank order, which is the slot order: a replacement takes the lost rank's position, a shrink renumbers
    without reordering, and after a grow the original order is back.
    """  # noqa: D205 - one sentence
    ordered = sorted(slots, key=lambda slot: slot.index)
    return tuple(slot.as_member(rank) for rank, slot in enumerate(ordered))


def with_slots(slots: tuple[Slot, ...], count: int, now_s: float) -> tuple[Slot, ...]:
    """The same slots, with empty ones added up to ``count``; none is ever taken away."""
    return (*slots, *(Slot(index=index, since_s=now_s) for index in range(len(slots), count)))
