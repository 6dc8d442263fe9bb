"""What reaches a job beside the view: figures, checkpoint and recovery reports, the user's wish to cancel. All pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from trainctl.controller.domain import checkpoint_figures, events, step_ranges
from trainctl.controller.domain.conditions import CHECKPOINT_STALE, with_condition
from trainctl.controller.domain.events import EventDraft
from trainctl.controller.domain.goodput import Bucket, move
from trainctl.controller.domain.job_records import RECENT_STEPS, CancelRequest, Recovery, TrainProgress
from trainctl.controller.domain.job_state import IslandState, JobState
from trainctl.controller.domain.kept_checkpoints import listed
from trainctl.controller.domain.late import LATE_S, happened_s
from trainctl.controller.domain.reconcile.fencing import fenced
from trainctl.controller.domain.reconcile.lifecycle import move_job
from trainctl.controller.domain.reconcile.read_back import observe_read_back
from trainctl.controller.domain.reconcile.recoveries import finish_recovery, is_new_step
from trainctl.controller.domain.reconcile.result import Reconciliation
from trainctl.controller.domain.save_cost import SaveTimes, cost_of, with_cost
from trainctl.controller.domain.states import STOPPING, TERMINAL, JobPhase
from trainctl.core.records.part import SNAPSHOT, storage_kind
from trainctl.core.records.spec import AUTO
from trainctl.core.records.step import StepFigures
from trainctl.core.records.worker import CheckpointReport, RecoveryReport
from trainctl.core.units import format_bytes, format_count, format_duration

_DAMAGED_SAID = 3
"""Files that an event names."""


def observe_figures(
    state: JobState, figures: Sequence[StepFigures], now_s: float, *, live: bool = True
) -> Reconciliation:
    """Takes figures of committed steps in; those of rolled-back lineages and known steps change nothing.

    A step that is jumped over is noted as missed, and is counted when its figures come later, of whatever lineage.

    Not durable, except for the job's last step and when the first step of a generation ends a recovery.

    Args:
        state: of the job.
        figures: of its steps.
        now_s: Unix seconds.
        live: an agent told them now. What was read in a file is as old as the node says that wrote it.
    """
    island = state.sole_island
    record = island.record
    fresh = [f for f in figures if record is not None and f.lineage == record.lineage]
    progress = state.progress
    for one in sorted(figures, key=lambda f: f.step):
        progress = _caught_up(progress, one)
    for one in sorted(fresh, key=lambda f: f.step):
        at_s = now_s if live else happened_s(now_s - one.wall_s, now_s, after_s=progress.updated_s)
        progress = _advanced(progress, one, at_s, begun_after=state.resume.step if state.resume is not None else 0)
    changed = replace(state, progress=progress)
    new = (f for f in fresh if record is not None and is_new_step(record, generation=f.generation, step=f.step))
    first = next(new, None)
    if first is None or island.marks is None or island.proposal is not None:
        last = progress != state.progress and progress.step >= state.steps
        return Reconciliation(state=changed, durable=last)
    finished_s = min(max(first.wall_s, island.committed_s), now_s)
    changed, island, drafts = finish_recovery(changed, island, finished_s)
    return Reconciliation(state=changed.with_island(island), events=drafts)


def _caught_up(progress: TrainProgress, f: StepFigures) -> TrainProgress:
    """A step that was jumped over is counted after all."""
    if not step_ranges.contains(progress.missed, f.step):
        return progress
    return replace(
        progress,
        tokens=progress.tokens + f.tokens,
        skipped=progress.skipped + f.skipped,
        missed=step_ranges.without(progress.missed, f.step),
    )


def _advanced(progress: TrainProgress, f: StepFigures, at_s: float, *, begun_after: int) -> TrainProgress:
    if f.eval_loss is not None and f.step >= progress.eval_step:
        progress = replace(progress, eval_loss=f.eval_loss, eval_step=f.step)
    if f.step <= progress.step and f.lineage == progress.lineage:
        return progress
    return replace(
        progress,
        lineage=f.lineage,
        step=f.step,
        cursor=f.cursor,
        tokens=progress.tokens + f.tokens,
        step_tokens=f.tokens,
        loss=progress.loss if f.skipped else f.loss,
        skipped=progress.skipped + f.skipped,
        missed=step_ranges.appended(progress.missed, max(progress.step, begun_after) + 1, f.step - 1),
        learning_rate=f.learning_rate,
        recent_step_s=(*progress.recent_step_s, f.step_s)[-RECENT_STEPS:],
        updated_s=at_s,
    )


def observe_checkpoint(state: JobState, report: CheckpointReport, now_s: float) -> Reconciliation:
    """Makes a complete checkpoint current, or says why not (``fenced``). Repeating a report has no second effect.

    Of one that was read back it takes in what was found (``observe_read_back``).

    It counts from when it was complete, which is ``report.age_s`` ago, however late a leader hears of it.
    """
    if report.read_back:
        return observe_read_back(state, report, now_s)
    record = state.sole_island.record
    newest = state.checkpoints[-1] if state.checkpoints else None
    complete_s = happened_s(report.age_s, now_s, after_s=newest.committed_s if newest is not None else state.started_s)
    report = replace(report, age_s=now_s - complete_s)
    ref = report.ref
    if ref is None:
        onward = "; training goes on" if report.step < state.steps else ""
        message = f"checkpoint of step {report.step} failed: {report.error}{onward}"
        counted = replace(state, checkpoint_figures=checkpoint_figures.failed(state.checkpoint_figures, report))
        stale = with_condition(counted, CHECKPOINT_STALE, True, now_s, reason="SaveFailed", message=message)
        if state.halt is not None and record is not None and report.lineage == record.lineage:
            stale = replace(stale, halt=replace(state.halt, failed_step=report.step))
        return Reconciliation(state=stale, events=(_event(events.CHECKPOINT_FAILED, "Failed", message, report),))
    if any(ref.uri == known.uri for known in state.checkpoints):
        return Reconciliation(state=state)
    if refusal := fenced(state, report):
        reason, message = refusal
        return Reconciliation(state=state, events=(_event(events.CHECKPOINT_REJECTED, reason, message, report),))
    goodput = state.goodput
    if state.phase not in TERMINAL:
        goodput = move(goodput, Bucket.PRODUCTIVE, Bucket.CHECKPOINT_STALL, report.stall_s, now_s)
    # Of the lineage before there may be a later step: the job went back to a snapshot that was cheaper to load.
    given_up = [old for old in state.checkpoints if old.step >= ref.step]
    known = (*(old for old in state.checkpoints if old not in given_up), replace(ref, committed_s=complete_s))
    kept = listed(state, known)
    figures = checkpoint_figures.saved(state.checkpoint_figures, report, ref.uri)
    save = checkpoint_figures.save_of(report, ref.uri, complete_s=complete_s)
    saves = (*state.saves, save)[-checkpoint_figures.TRANSFERS_KEPT :]
    changed = replace(state, checkpoints=kept, goodput=goodput, checkpoint_figures=figures, saves=saves)
    if state.spec.spec.checkpoint.interval == AUTO:
        times = SaveTimes(step=report.step, lineage=report.lineage, stall_s=report.stall_s, seconds=report.seconds)
        changed = replace(changed, save_costs=with_cost(state.save_costs, cost_of(times, state.progress)))
    longest = f"; {report.bottleneck}" if report.bottleneck else ""
    took = f"{report.seconds:.2f} s, of which training waited {report.stall_s:.2f} s{longest}"
    left = f"; given up: {', '.join(old.uri for old in given_up)}" if given_up else ""
    message = f"checkpoint of step {ref.step} is committed: {ref.uri} ({took}){left}"
    changed = with_condition(changed, CHECKPOINT_STALE, False, now_s, reason="Saved", message=message)
    committed = _event(events.CHECKPOINT_COMMITTED, "Committed", message, report)
    told = replace(committed, fields={**committed.fields, **checkpoint_figures.part_fields(save.parts)})
    return Reconciliation(state=changed, events=(told,))


def _event(type_: str, reason: str, message: str, report: CheckpointReport) -> EventDraft:
    fields = {"step": str(report.step), "lineage": str(report.lineage), "generation": str(report.generation)}
    if report.age_s >= LATE_S:
        message += f"; that was {format_duration(report.age_s)} before a leader heard of it"
        fields["age_s"] = f"{report.age_s:.1f}"
    return EventDraft(type=type_, reason=reason, message=message, fields=fields)


def observe_recovery(state: JobState, report: RecoveryReport, now_s: float) -> Reconciliation:
    """Adds to the recovery's record what one member copied from whom, and how long its parts took.

    Rank 0 also tells how all of them came by a checkpoint's state, if they did, which need not be a recovery.
    """
    state, drafts = _loaded(state, report, now_s)
    index = next((i for i, r in enumerate(state.recoveries) if r.generation == report.generation), None)
    if index is None:
        return Reconciliation(state=state, events=drafts, durable=bool(drafts))
    island = state.sole_island
    recovery = state.recoveries[index]
    copied = {f"{source} -> rank {report.global_rank}": size for source, size in report.received_bytes.items()}
    recovery = replace(recovery, copied_bytes={**recovery.copied_bytes, **copied})
    if island.marks is not None and index == len(state.recoveries) - 1:
        island = _slower(island, report)
    else:
        recovery = _rebalanced(recovery, report)
    recoveries = (*state.recoveries[:index], recovery, *state.recoveries[index + 1 :])
    return Reconciliation(state=replace(state, recoveries=recoveries).with_island(island), events=drafts)


def _loaded(state: JobState, report: RecoveryReport, now_s: float) -> tuple[JobState, tuple[EventDraft, ...]]:
    found = report.load
    if found is None or any(known.generation == report.generation for known in state.loads):
        return state, ()
    load = checkpoint_figures.load_of(found, generation=report.generation, now_s=now_s)
    changed = replace(state, loads=(*state.loads, load)[-checkpoint_figures.TRANSFERS_KEPT :])
    in_memory = storage_kind(load.uri) == SNAPSHOT
    if not in_memory:
        figures = checkpoint_figures.loaded(state.checkpoint_figures, load, found.parts)
        changed = replace(changed, checkpoint_figures=figures)
    longest = f"; {load.bottleneck}" if load.bottleneck else ""
    amount = f"{format_bytes(load.data_bytes)} into {format_count(load.ranks, 'rank')}"
    what = "snapshot" if in_memory else "checkpoint"
    healed = f"; {format_count(load.healed_reads, 'read')} only right when repeated" if load.healed_reads else ""
    message = f"{what} of step {load.step} is loaded: {load.uri} ({amount} in {load.seconds:.2f} s{longest}{healed})"
    fields = {"step": str(load.step), "generation": str(load.generation)}
    told = {**fields, **checkpoint_figures.part_fields(load.parts)}
    loaded = EventDraft(type=events.CHECKPOINT_LOADED, reason="Loaded", message=message, fields=told)
    if not found.damaged:
        return changed, (loaded,)
    were = f"{format_count(len(found.damaged), 'file')} of the snapshot of step {load.step} "
    were += "was not as it was saved" if len(found.damaged) == 1 else "were not as they were saved"
    message = f"{were}, so another node's copy was taken: {'; '.join(found.damaged[:_DAMAGED_SAID])}"
    return changed, (
        EventDraft(type=events.SNAPSHOT_REPAIRED, reason="Damaged", message=message, fields=fields),
        loaded,
    )


def _slower(island: IslandState, report: RecoveryReport) -> IslandState:
    marks = island.marks
    assert marks is not None
    rebuild_s, restore_s = max(marks.rebuild_s, report.rebuild_s), max(marks.restore_s, report.restore_s)
    return replace(island, marks=replace(marks, rebuild_s=rebuild_s, restore_s=restore_s))


def _rebalanced(recovery: Recovery, report: RecoveryReport) -> Recovery:
    """A report that came after the first step: the parts after the commit are split anew, their sum stays."""
    phases = dict(recovery.phases_s)
    if not phases:
        return recovery
    left = phases["rendezvous"] + phases["restore"] + phases["first_step"]
    rendezvous = min(max(phases["rendezvous"], report.rebuild_s), left)
    restore = min(max(phases["restore"], report.restore_s), left - rendezvous)
    phases |= {"rendezvous": rendezvous, "restore": restore, "first_step": left - rendezvous - restore}
    return replace(recovery, phases_s=phases)


def request_cancel(state: JobState, now_s: float, *, checkpoint: bool = True, grace_s: float = 30.0) -> Reconciliation:
    """Begins to end a job. One that ends already, whatever the way, is left alone, so asking twice does no harm."""
    if state.phase in TERMINAL or state.phase in STOPPING:
        return Reconciliation(state=state)
    request = CancelRequest(requested_s=now_s, checkpoint=checkpoint, grace_s=grace_s)
    trains = any(island.entered and island.proposal is None for island in state.islands)
    how = "after a checkpoint" if checkpoint and trains else "without a new checkpoint"
    message = f"cancel requested: workers stop {how} within {grace_s:g} s"
    if state.spec.spec.runs_command:
        message = f"cancel requested: the command gets SIGTERM, and SIGKILL if it does not end within {grace_s:g} s"
    changed = replace(state, cancel=request)
    changed, drafts = move_job(changed, JobPhase.CANCELLING, now_s, reason="CancelRequested", message=message)
    asked = EventDraft(type=events.JOB_CANCEL_REQUESTED, reason="User", message=message)
    return Reconciliation(state=changed, events=(asked, *drafts))
