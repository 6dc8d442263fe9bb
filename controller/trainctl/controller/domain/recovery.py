"""The ladder: which rung brings all members to one consistent state, by guarantee first and predicted cost second.

``choose_recovery`` is pure. Each rung is one entry of ``LADDER``; another one (neighbour averaging) plugs in as one
more entry. Eligibility is decided per range of the state, with the layout algebra, never per rank.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from trainctl.checkpoint.layout.copy_plan import MissingRange, uncovered
from trainctl.checkpoint.layout.layout import Layout, host_holder
from trainctl.controller.domain.job_records import RecoveryCandidate
from trainctl.core.records.generation import CheckpointRef, Rung
from trainctl.core.records.snapshot import SnapshotRef
from trainctl.core.units import format_bytes, format_count


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What predictions are made from.

    Attributes:
        step_s: seconds per step; 0 while unknown.
        state_bytes: size of one full copy of the state, as the workers report it.
        peer_bytes_per_s: one worker to another.
        memory_bytes_per_s: a snapshot out of the memory of the node itself, checksums included.
        disk_bytes_per_s: the same from its disk.
        storage_bytes_per_s: a checkpoint to all workers.
        rebuild_s: building the group and its connections.
        boot_s: a new worker until it is ready.
    """

    step_s: float = 0.0
    state_bytes: int = 0
    peer_bytes_per_s: float = 1e9
    memory_bytes_per_s: float = 4e9
    disk_bytes_per_s: float = 5e8
    storage_bytes_per_s: float = 2e8
    rebuild_s: float = 0.2
    boot_s: float = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """Everything the decision depends on.

    Attributes:
        target_step: step that the evidence says everybody shall hold; what a rung returns to earlier is lost work.
        initial: nothing was ever trained: there is nothing to recover.
        stood_step: newest step that was committed before the recovery began; later than the target where it already
            went back, to a state that is lost now, too.
        wanted: what each member must hold.
        live: what live members hold at the target (their retained gradients count as far as they complete it).
        snapshots: what the nodes' memories, or disks, hold of snapshots of the surviving lineage, oldest first;
            holders are the nodes, ``host:<node>``.
        checkpoints: layouts of committed checkpoints of the surviving lineage, oldest first.
        resume: the checkpoint that the job was told to begin with.
        joiners: members without state.
        replaced: members that are new workers.
        short: slots that got no replacement in time.
        grown: slots that are in addition to the last generation's.
        costs: for the predictions.
        nodes: of each member: those that hold nothing of a snapshot get it from the others first.
        on_disk: the snapshots lie on the nodes' disks, not in their memory.
        no_snapshot: why the newest snapshot is none of ``snapshots``, or not whole there, in words; empty if it is, or
            if there never was one.
    """

    target_step: int
    initial: bool
    wanted: Layout
    live: Layout
    snapshots: tuple[tuple[SnapshotRef, Layout], ...]
    checkpoints: tuple[tuple[CheckpointRef, Layout], ...]
    resume: CheckpointRef | None
    joiners: int
    replaced: int
    short: int
    grown: int
    costs: Costs
    stood_step: int = 0
    no_snapshot: str = ""
    nodes: tuple[str, ...] = ()
    on_disk: bool = False

    def lost_steps(self, step: int) -> int:
        """Committed steps that going on after ``step`` throws away."""
        return max(0, max(self.stood_step, self.target_step) - step)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A judged rung.

    Attributes:
        rung: which.
        eligible: it can supply every range.
        cost_s: predicted seconds until the state of the target step is reached again.
        reason: one sentence.
        lost_steps: committed steps that were thrown away by then.
        restart_step: step it returns to.
        checkpoint: what it loads.
        snapshot: what it loads.
        missing: ranges that it cannot supply.
    """

    rung: Rung
    eligible: bool
    cost_s: float
    reason: str
    lost_steps: int = 0
    restart_step: int = 0
    checkpoint: CheckpointRef | None = None
    snapshot: SnapshotRef | None = None
    missing: tuple[MissingRange, ...] = ()

    def as_record(self) -> RecoveryCandidate:
        """The part that is kept and shown."""
        cost_s = self.cost_s if self.eligible else 0.0
        return RecoveryCandidate(rung=self.rung.value, eligible=self.eligible, cost_s=cost_s, reason=self.reason)


class Givers(Enum):
    """Whom the members without the state get it from."""

    HOLDERS = "holders"
    """Members that hold the state of the target step."""

    STARTERS = "starters"
    """Members that can still make the initial state."""

    NOBODY = "nobody"
    """Everybody makes or loads it alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LadderRung:
    """One rung of the ladder: how it is judged, and what it does with the state.

    Attributes:
        judge: whether it is possible, and what it costs.
        goes_back: everybody's state is replaced, in a new lineage; otherwise what live workers hold is kept.
        givers: whom the others get the state from, unless it is loaded from a checkpoint.
    """

    judge: Callable[[Situation], Candidate]
    goes_back: bool
    givers: Givers


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The chosen rung, what it was chosen from, and what it does with the state (see ``LadderRung``)."""

    rung: Rung
    reason: str
    target_step: int
    lost_steps: int
    checkpoint: CheckpointRef | None
    snapshot: SnapshotRef | None = None
    candidates: tuple[Candidate, ...]
    missing: tuple[MissingRange, ...]
    goes_back: bool = False
    givers: Givers = Givers.NOBODY


def choose_recovery(situation: Situation) -> Decision:
    """Judges every rung and picks one.

    Where a rung keeps what the live workers hold, only such rungs compete (design 5: then nothing but the open step is
    repeated); otherwise the cheapest eligible one wins; ties go to the higher rung. Starting again is the last resort.
    """
    judged = [(rung, rung.judge(situation)) for rung in LADDER]
    usable = [(rung, candidate) for rung, candidate in judged if candidate.eligible]
    keeping = [(rung, candidate) for rung, candidate in usable if not rung.goes_back]
    rung, chosen = min(keeping or usable, key=lambda one: one[1].cost_s)
    return Decision(
        rung=chosen.rung,
        reason=chosen.reason,
        target_step=chosen.restart_step,
        lost_steps=chosen.lost_steps,
        checkpoint=chosen.checkpoint,
        snapshot=chosen.snapshot,
        candidates=tuple(candidate for _, candidate in judged),
        missing=chosen.missing,
        goes_back=rung.goes_back,
        givers=rung.givers if chosen.checkpoint is None else Givers.NOBODY,
    )


def shrink(s: Situation) -> Candidate:
    """Go on without the lost slots; possible when the members that are left hold everything themselves."""
    cost_s = s.costs.rebuild_s
    if s.short == 0:
        return _no(Rung.SHRINK, "every lost slot has a replacement")
    missing = uncovered(s.wanted, s.live)
    if s.joiners or missing:
        left = f"{format_count(s.joiners, 'member')} left without state" if s.joiners else _nobody_has(missing)
        return _no(Rung.SHRINK, left, missing)
    reason = f"no replacement in time for {format_count(s.short, 'slot')}; every member left holds step {s.target_step}"
    return _yes(Rung.SHRINK, s, cost_s, reason)


def peer(s: Situation) -> Candidate:
    """Copy from live workers that hold the same keys."""
    rung = Rung.GROW if s.grown and not s.replaced else Rung.PEER
    if not s.live.holders:
        return _no(rung, f"no live worker holds the state of step {s.target_step}")
    missing = uncovered(s.wanted, s.live)
    if missing:
        return _no(rung, _nobody_has(missing), missing)
    size = s.costs.state_bytes * s.joiners
    boot_s = s.costs.boot_s if s.replaced else 0.0
    cost_s = s.costs.rebuild_s + boot_s + size / s.costs.peer_bytes_per_s
    if s.joiners == 0:
        return _yes(rung, s, cost_s, f"every member holds step {s.target_step} itself; nothing to copy")
    holders, have = format_count(len(s.live.holders), "worker"), "has" if len(s.live.holders) == 1 else "have"
    copy = f"{format_count(s.joiners, 'new worker')} {'copies' if s.joiners == 1 else 'copy'} {format_bytes(size)}"
    reason = f"{copy} from {holders} that {have} step {s.target_step}: exact, only the open step is repeated"
    return _yes(rung, s, cost_s, reason)


def _nobody_has(missing: Sequence[MissingRange]) -> str:
    return f"no live worker has {format_count(len(missing), 'range')} of the state, first: {missing[0]}"


def snapshot(s: Situation) -> Candidate:
    """Roll everybody back to the newest snapshot that the nodes hold every range of: one step for all."""
    where = "on the disks" if s.on_disk else "in the memory"
    if not s.snapshots:
        return _no(Rung.SNAPSHOT, s.no_snapshot or f"no snapshot is {where} of the nodes")
    missing = tuple[MissingRange, ...]()
    for ref, layout in reversed(s.snapshots):
        missing = uncovered(_at_version_of(layout, s.wanted), layout)
        if missing:
            continue
        lost = s.lost_steps(ref.step)
        nodes = format_count(len(layout.holders), "node")
        fetching = sum(1 for node in s.nodes if host_holder(node) not in layout.holders)
        fetch = f", {format_count(fetching, 'member')} of {len(s.nodes)} get it from there first" if fetching else ""
        redo = format_count(lost, "step") if lost else "nothing"
        instead = f"; {s.no_snapshot}" if s.no_snapshot else ""
        return Candidate(
            rung=Rung.SNAPSHOT,
            eligible=True,
            cost_s=_snapshot_cost_s(s, fetching) + lost * s.costs.step_s,
            reason=f"{'disks' if s.on_disk else 'the memory'} of {nodes} "
            f"{'hold' if s.on_disk else 'holds'} step {ref.step}{fetch}; redo {redo}{instead}",
            lost_steps=lost,
            restart_step=ref.step,
            snapshot=ref,
        )
    ranges = f"{format_count(len(missing), 'range')} not {where} of any node, first: {missing[0]}"
    return _no(Rung.SNAPSHOT, s.no_snapshot or ranges, missing)


def _snapshot_cost_s(s: Situation, fetching: int) -> float:
    """Its tiers: a node's own memory, then a buddy's, then its own disk; a checkpoint's storage comes after them."""
    boot_s = s.costs.boot_s if s.replaced else 0.0
    fetch_s = s.costs.state_bytes * fetching / max(1, len(s.nodes)) / s.costs.peer_bytes_per_s
    read_s = s.costs.state_bytes / (s.costs.disk_bytes_per_s if s.on_disk else s.costs.memory_bytes_per_s)
    return s.costs.rebuild_s + boot_s + fetch_s + read_s


def checkpoint(s: Situation) -> Candidate:
    """Roll everybody back to the newest committed checkpoint that covers every range."""
    if s.initial:
        return _no(Rung.CHECKPOINT, "nothing was trained yet")
    for ref, layout in reversed(s.checkpoints):
        missing = uncovered(_at_version_of(layout, s.wanted), layout)
        if missing:
            continue
        lost = s.lost_steps(ref.step)
        load_s = s.costs.state_bytes / s.costs.storage_bytes_per_s
        cost_s = s.costs.rebuild_s + s.costs.boot_s + load_s + lost * s.costs.step_s
        return Candidate(
            rung=Rung.CHECKPOINT,
            eligible=True,
            cost_s=cost_s,
            reason=f"load step {ref.step} from {ref.uri} and redo {format_count(lost, 'step') if lost else 'nothing'}",
            lost_steps=lost,
            restart_step=ref.step,
            checkpoint=ref,
        )
    return _no(Rung.CHECKPOINT, "no committed checkpoint in this lineage")


def start(s: Situation) -> Candidate:
    """Build the initial state from the seed: the first start, and the last resort."""
    lost = s.lost_steps(0)
    cost_s = s.costs.rebuild_s + s.costs.boot_s + lost * s.costs.step_s
    if s.initial:
        reason = "nothing was trained yet: every member builds the initial state from the seed"
        if s.resume is not None:
            reason = f"the job begins with step {s.resume.step} of {s.resume.uri}"
        return replace(_yes(Rung.START, s, s.costs.rebuild_s, reason), checkpoint=s.resume)
    for kept in (snapshot, checkpoint):
        if kept(s).eligible:
            return _no(Rung.START, f"the last resort, and there is a {kept.__name__}")
    return Candidate(
        rung=Rung.START,
        eligible=True,
        cost_s=cost_s,
        reason=f"start again from step 0 and redo {format_count(lost, 'step')}",
        lost_steps=lost,
        restart_step=0,
    )


LADDER = (
    LadderRung(judge=shrink, goes_back=False, givers=Givers.HOLDERS),
    LadderRung(judge=peer, goes_back=False, givers=Givers.HOLDERS),
    LadderRung(judge=snapshot, goes_back=True, givers=Givers.NOBODY),
    LadderRung(judge=checkpoint, goes_back=True, givers=Givers.NOBODY),
    LadderRung(judge=start, goes_back=True, givers=Givers.STARTERS),
)
"""The rungs, best first. ``shrink`` comes first because where it is eligible nothing has to be copied at all."""


def _yes(rung: Rung, s: Situation, cost_s: float, reason: str) -> Candidate:
    step = s.target_step
    lost = s.lost_steps(step)
    return Candidate(rung=rung, eligible=True, cost_s=cost_s, reason=reason, lost_steps=lost, restart_step=step)


def _no(rung: Rung, reason: str, missing: tuple[MissingRange, ...] = ()) -> Candidate:
    return Candidate(rung=rung, eligible=False, cost_s=0.0, reason=reason, missing=missing)


def _at_version_of(checkpoint_layout: Layout, wanted: Layout) -> Layout:
    """The same wish, but for the version that the checkpoint holds: a roll-back changes what is wanted."""
    held = {(k.fqn, k.kind, k.dtype, k.instance): k for k in checkpoint_layout.shapes}
    rename = {k: held.get((k.fqn, k.kind, k.dtype, k.instance), k) for k in wanted.shapes}
    return Layout.placed({rename[k]: placement for k, placement in wanted.placements.items()}, wanted.holders)
