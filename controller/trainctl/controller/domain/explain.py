"""``trainctl explain``: why a job is where it is, in sentences with numbers, and what would change it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from trainctl.controller.domain.command import command_sentences
from trainctl.controller.domain.goodput import Bucket
from trainctl.controller.domain.job_state import IslandState, JobState
from trainctl.controller.domain.metrics import TRAINING, eta_s, ettr_of, goodput_s, stalled_s, tokens_per_s
from trainctl.controller.domain.shown_figures import ShownFigures
from trainctl.controller.domain.snapshot_words import sentences
from trainctl.controller.domain.states import TERMINAL, JobPhase, SlotState
from trainctl.core.records.spec import AUTO, CheckpointSpec, SnapshotsSpec
from trainctl.core.units import format_count, format_duration

NEXT: Mapping[JobPhase, str] = {
    JobPhase.QUEUED: "it starts when slots for all its workers are free at once: `trainctl get nodes` shows them",
    JobPhase.ADMITTED: "it has its slots; its workers are started now",
    JobPhase.STARTING: "its workers boot and load what they need; it begins when all of them are ready",
    JobPhase.RUNNING: "it runs until its end; nothing is waited for",
    JobPhase.RECOVERING: "the survivors keep what they have; it goes on when the new generation has agreed on the step",
    JobPhase.RESIZING: "it goes on in its new size when the new generation has agreed on the step",
    JobPhase.PAUSING: "it saves a checkpoint, ends its workers and then gives its slots back",
    JobPhase.PAUSED: "it holds no slots; `trainctl resume {name}` goes on from its checkpoint",
    JobPhase.RESTARTING: "its workers are being replaced by new processes, which go on from a checkpoint",
    JobPhase.COMPLETING: "the last step is done; it has succeeded when its last checkpoint is committed",
    JobPhase.CANCELLING: "it has ended when its workers have, at the latest after the grace time",
    JobPhase.FAILING: "it cannot go on; it has failed when its workers have ended",
    JobPhase.SUCCEEDED: "it is done",
    JobPhase.CANCELLED: "to run it, submit it again",
    JobPhase.FAILED: "once the cause is gone, submit it again",
}
"""By phase, what ends it or what can be done now."""

_WITH_CHECKPOINTS: Mapping[JobPhase, str] = {
    JobPhase.SUCCEEDED: "its checkpoints are there: `trainctl checkpoints list {name}`",
    JobPhase.CANCELLED: "to go on from where it was, submit it again with spec.checkpoint.resumeFrom: "
    "`trainctl checkpoints list {name}` shows its checkpoints",
    JobPhase.FAILED: "once the cause is gone, submit it again; with spec.checkpoint.resumeFrom it goes on from one of "
    "its checkpoints: `trainctl checkpoints list {name}`",
}
"""The same for a job that has ended and left some."""

_OF_COMMAND: Mapping[JobPhase, str] = {
    JobPhase.RECOVERING: "the command is started again on all ranks when each has a worker",
    JobPhase.RESIZING: "the command is started again when each rank of its new size has a worker",
    JobPhase.PAUSING: "it ends the command and then gives its slots back",
    JobPhase.PAUSED: "it holds no slots; `trainctl resume {name}` starts the command again",
    JobPhase.RESTARTING: "its workers are being replaced by new processes, which start the command again",
    JobPhase.COMPLETING: "the command has ended on all ranks; it has succeeded when its workers have ended, too",
}
"""The same for a command, which keeps its state itself."""


def explain(state: JobState, now_s: float, *, figures: ShownFigures | None = None) -> tuple[str, ...]:
    """What there is to say about a job now, the most important first.

    Args:
        state: of the job.
        now_s: Unix seconds.
        figures: how far it is, as far as is known; None: as its state says.
    """
    progress = state.progress
    known = figures or ShownFigures(step=progress.step, as_of_s=progress.updated_s)
    pace = [*_stands(state, known, now_s), *_moves(state, known, now_s)]
    return tuple(
        [
            *_phase(state, now_s),
            *pace,
            *_wishes(state),
            *_islands(state),
            *_faults(state),
            *_saves(state),
            *_in_memory(state, known, now_s),
            *_time(state, now_s),
        ]
    )


def plan_sentences(state: JobState) -> tuple[str, ...]:
    """What a job with this state would start: for a dry run."""
    spec = state.spec.spec
    per_node, nodes = spec.resources.workers_per_node, spec.nodes
    batch = spec.train.batch
    size = (
        f"{format_count(nodes.target, 'node')} with {format_count(per_node, 'worker')} each: world size "
        f"{nodes.target * per_node}; elastic from {nodes.min} to {format_count(nodes.target, 'node')}"
    )
    if spec.runs_command:
        return size, *command_sentences(state.spec)
    sentences = [
        size,
        f"each step trains {batch.sequences} sequences of {spec.train.model.context} tokens in {batch.micro_batches} "
        "micro-batches, whatever the world size",
        f"{format_count(spec.train.steps, 'step')} of task {spec.train.task}; "
        f"a checkpoint {how_often(spec.checkpoint)}{_snapshots(spec.checkpoint.snapshots)}",
        f"a lost worker is replaced from a live peer; without one within {spec.recovery.replacement_wait} the "
        f"job goes on with fewer nodes, but at least {nodes.min}",
    ]
    return tuple(sentences)


def how_often(checkpoint: CheckpointSpec) -> str:
    """How often a job with this spec saves."""
    steps = f"every {checkpoint.interval_steps} steps" if checkpoint.interval_steps else "after the last step only"
    return _by_time(checkpoint.interval) or steps


def how_often_in_memory(snapshots: SnapshotsSpec) -> str:
    """How often a job with this spec makes snapshots; empty: never."""
    steps = f"every {snapshots.interval_steps} steps" if snapshots.interval_steps else ""
    return _by_time(snapshots.interval) or steps


def _by_time(interval: str) -> str:
    if interval == AUTO:
        return "as often as pays, by what one costs and how often the job fails"
    return f"every {interval}" if interval else ""


def _snapshots(snapshots: SnapshotsSpec) -> str:
    often = how_often_in_memory(snapshots)
    where = "on the disks" if snapshots.on_disk else "in the memory"
    return f", a snapshot {where} of the nodes {often}" if often else ""


def _phase(state: JobState, now_s: float) -> Iterator[str]:
    if state.failure is not None:
        yield state.failure.message
        if state.failure.hint:
            yield f"what to do: {state.failure.hint}"
    since = format_duration(max(0.0, (state.ended_s or now_s) - state.phase_since_s))
    ended = state.phase in TERMINAL
    yield (
        f"{state.name} is {state.phase.value}"
        + ("" if ended else f" for {since}")
        + f": {state.message or state.reason}"
    )
    special: Mapping[JobPhase, str] = (
        _OF_COMMAND if state.spec.spec.runs_command else _WITH_CHECKPOINTS if state.checkpoints else {}
    )
    yield special.get(state.phase, NEXT[state.phase]).format(name=state.name)


def _stands(state: JobState, figures: ShownFigures, now_s: float) -> Iterator[str]:
    """How far it is."""
    progress = state.progress
    if (not figures.step and not figures.stale) or state.phase in TERMINAL:
        return
    stands = f"step {figures.step} of {state.steps}"
    if figures.stale:
        age = format_duration(max(0.0, now_s - figures.as_of_s))
        if figures.step_stale:
            yield f"{stands} is {age} old: its agents have not reported to this leader yet"
        else:
            yield f"{stands}; its figures are {age} old: newer ones have not come to this leader yet"
        return
    stands += f", loss {progress.loss:.4f}" if progress.loss is not None else ""
    stands += f", {progress.skipped} of them skipped" if progress.skipped else ""
    left_s = eta_s(state, now_s)
    moves = f", {tokens_per_s(state, now_s):.0f} tokens/s"
    moves += f", about {format_duration(left_s)} to go" if left_s else ""
    yield stands + (moves if state.phase in TRAINING else "")


def _moves(state: JobState, figures: ShownFigures, now_s: float) -> Iterator[str]:
    """Whether it goes on; a leader that has not heard of newer steps yet cannot know."""
    stalled = 0.0 if figures.stale else stalled_s(state, now_s)
    if stalled:
        yield (
            f"no step was committed for {format_duration(stalled)}, though its workers show signs of life: "
            f"`trainctl describe {state.name}` shows what each does, `trainctl logs {state.name}` what it prints"
        )


def _wishes(state: JobState) -> Iterator[str]:
    """What somebody asked for and is not done yet."""
    if state.halt is not None:
        waits = "its workers stop" if state.halt.stopping else "it is done as soon as it trains and its step is saved"
        yield f"a {state.halt.kind.value} was requested: {waits}"
    if state.rollback is not None:
        yield f"a roll-back to step {state.rollback.checkpoint.step} was requested: the next generation begins there"
    if state.deletion is not None:
        yield "its deletion was requested: nothing of it is left when it has ended"


def _islands(state: JobState) -> Iterator[str]:
    if state.phase in TERMINAL:
        return
    for island in state.islands:
        yield from _island(state, island)


def _island(state: JobState, island: IslandState) -> Iterator[str]:
    record, proposal = island.record, island.proposal
    if record is not None and state.spec.spec.runs_command:
        yield (
            f"{island.id} has generation {record.generation} with {format_count(record.world_size, 'rank')}, "
            f"start {record.restarts + 1} of the command: {record.reason}"
        )
    elif record is not None:
        yield (
            f"{island.id} has generation {record.generation} with {format_count(record.world_size, 'worker')}, "
            f"lineage {record.lineage}, from step {record.target_step} ({record.rung.value}): {record.reason}"
        )
    if proposal is not None:
        ready = sum(1 for i in proposal.slots if island.slots[i].state not in (SlotState.EMPTY, SlotState.STARTING))
        booting = sum(1 for i in proposal.slots if island.slots[i].state is SlotState.STARTING)
        yield (
            f"generation {proposal.generation} is being prepared ({proposal.reason}): {ready} of {len(proposal.slots)} "
            f"workers are there, {booting} boot"
        )
    wanted = state.spec.spec.nodes.target * state.spec.spec.resources.workers_per_node
    if record is not None and record.world_size < wanted and state.phase is JobPhase.RUNNING:
        yield f"it runs with {record.world_size} of {wanted} workers and grows when a node has free slots"


def _faults(state: JobState) -> Iterator[str]:
    if not state.recoveries:
        return
    last = state.recoveries[-1]
    total = last.phases_s.get("total")
    unfinished = "was not finished" if state.phase in TERMINAL else "is in progress"
    took = f"took {total:.2f} s" if total is not None else unfinished
    kind = "planned change" if last.planned else "recovery"
    yield f"recoveries so far: {state.recovery_count}; the last {kind} {took}: {last.fault}"
    for candidate in last.candidates:
        judged = f"{candidate.cost_s:.2f} s" if candidate.eligible else "not possible"
        chosen = " (chosen)" if candidate.rung == last.rung else ""
        yield f"rung {candidate.rung}{chosen}: {judged}, {candidate.reason}"


def _saves(state: JobState) -> Iterator[str]:
    for noun, chosen in (("checkpoint", state.checkpoint_interval), ("snapshot", state.snapshot_interval)):
        if chosen is not None and state.phase not in TERMINAL:
            yield f"a {noun} is made every {format_duration(chosen.interval_s)}: {chosen.reason}"


def _in_memory(state: JobState, figures: ShownFigures, now_s: float) -> Iterator[str]:
    if state.phase in TRAINING:
        yield from sentences(
            state.snapshot_figures, step=figures.step, now_s=now_s, on_disk=state.spec.spec.checkpoint.snapshots.on_disk
        )


def _time(state: JobState, now_s: float) -> Iterator[str]:
    spent = {name: seconds for name, seconds in goodput_s(state, now_s).items() if seconds >= 0.01}
    parts = ", ".join(f"{name} {format_duration(s)}" for name, s in sorted(spent.items(), key=lambda item: -item[1]))
    if parts:
        yield f"time: {parts}; {100 * ettr_of(state, now_s):.1f} % of the time not {Bucket.QUEUED.value} was productive"
