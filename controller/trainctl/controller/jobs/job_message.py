"""A job's persisted state as the API shows it. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from trainctl.controller.domain.goodput import totals_s
from trainctl.controller.domain.job_state import IslandState, JobState, Slot
from trainctl.controller.domain.metrics import TRAINING, eta_s, tokens_per_s
from trainctl.controller.domain.shown_figures import ShownFigures, shown_figures
from trainctl.controller.domain.snapshots import MADE, SnapshotFigures
from trainctl.controller.domain.states import TERMINAL, JobPhase
from trainctl.controller.domain.transfers import shown_transfers
from trainctl.controller.domain.view import ClusterView
from trainctl.core.records.part import Transfer
from trainctl.core.records.places import records_uri
from trainctl.core.records.step import Phase
from trainctl.core.records.worker import Progress
from trainctl.protos.convert import record_to_message
from trainctl.protos.v1 import job_pb2
from trainctl.protos.v1.records_pb2 import CheckpointRef, TrainJob, WorkerError


def job_message(
    state: JobState, view: ClusterView, *, now_s: float, revision: int, since_s: float = 0.0
) -> job_pb2.Job:
    """The whole job.

    Args:
        state: the persisted truth.
        view: the newest observations; they only add process ids' phases and steps, and what is saved or loaded now.
        now_s: Unix seconds.
        revision: of the state in the store.
        since_s: when this controller began to lead: what was known before may be old.
    """
    return job_pb2.Job(
        uid=state.uid,
        spec=record_to_message(state.user_spec, TrainJob),
        effective_spec=record_to_message(state.spec, TrainJob),
        status=_with_transfers(_status(state, view, now_s, shown_figures(state, view, since_s=since_s)), state, view),
        create_time_s=state.submitted_s,
        revision=revision,
    )


def records_of(state: JobState) -> str:
    """Folder or URI of the job's records."""
    return records_uri(state.spec.spec.results, workdir=state.workdir, job_uid=state.uid)


def _status(state: JobState, view: ClusterView, now_s: float, figures: ShownFigures) -> job_pb2.JobStatus:
    ended = state.phase in TERMINAL
    progress = state.progress
    record = state.sole_island.record
    command = state.spec.spec.runs_command
    status = job_pb2.JobStatus(
        phase=state.phase.value,
        reason=state.reason,
        message=state.message,
        step=figures.step,
        figures_as_of_s=figures.as_of_s,
        figures_stale=figures.stale,
        step_stale=figures.step_stale,
        total_steps=0 if command else state.steps,
        tokens=progress.tokens,
        loss=progress.loss,
        eval_loss=progress.eval_loss,
        tokens_per_s=0.0 if figures.stale else tokens_per_s(state, now_s),
        eta_s=0.0 if figures.stale else eta_s(state, now_s),
        lineage=record.lineage if record is not None and not command else 0,
        islands=[_island(state, island, view) for island in state.islands],
        conditions=[record_to_message(c, job_pb2.Condition) for c in state.conditions],
        goodput_s={k: v for k, v in totals_s(state.goodput, state.ended_s if ended else now_s).items() if v},
        restarts=state.restarts.total,
        start_time_s=state.started_s,
        end_time_s=state.ended_s,
        workdir=state.workdir,
        records=records_of(state),
        recoveries=[record_to_message(r, job_pb2.Recovery) for r in state.recoveries],
        recovery_count=state.recovery_count,
        skipped_steps=progress.skipped,
        wall_s=(state.ended_s if ended else now_s) - state.submitted_s,
    )
    if state.checkpoints:
        status.checkpoint.CopyFrom(record_to_message(state.checkpoints[-1], CheckpointRef))
    if state.checkpoint_interval is not None:
        interval = record_to_message(state.checkpoint_interval, job_pb2.CheckpointInterval)
        status.checkpoint_interval.CopyFrom(interval)
    if state.snapshot_interval is not None:
        status.snapshot_interval.CopyFrom(record_to_message(state.snapshot_interval, job_pb2.CheckpointInterval))
    if state.failure is not None:
        if state.phase in (JobPhase.FAILED, JobPhase.FAILING):
            status.message, status.hint = state.failure.message, state.failure.hint
        if state.failure.error is not None:
            status.error.CopyFrom(record_to_message(state.failure.error, WorkerError))
    return status


def _with_transfers(status: job_pb2.JobStatus, state: JobState, view: ClusterView) -> job_pb2.JobStatus:
    """What goes on right now, the saves and loads that are over, and what lies in memory."""
    status.transfers.extend(record_to_message(one, job_pb2.TransferStatus) for one in shown_transfers(state, view))
    status.saves.extend(record_to_message(save, job_pb2.Save) for save in state.saves)
    status.loads.extend(record_to_message(load, job_pb2.Load) for load in state.loads)
    if state.phase in TRAINING and state.spec.spec.checkpoint.snapshots.wanted:
        status.snapshot.CopyFrom(_snapshot(state.snapshot_figures, status.step))
    return status


def _snapshot(figures: SnapshotFigures, step: int) -> job_pb2.SnapshotStatus:
    status = job_pb2.SnapshotStatus(made=figures.so_far.get(MADE, 0), stopped=figures.stopped)
    if figures.newest is not None:
        status.step, status.lineage = figures.newest.step, figures.newest.lineage
        status.steps_back = max(0, step - figures.newest.step)
        status.complete_s, status.parts, status.uncopied_parts = figures.complete_s, figures.parts, figures.uncopied
        status.one_domain_parts = figures.in_one_domain
        status.nodes.extend(record_to_message(share, job_pb2.SnapshotNode) for share in figures.nodes)
    return status


def _island(state: JobState, island: IslandState, view: ClusterView) -> job_pb2.IslandStatus:
    members = island.record.members if island.record is not None else ()
    ranks = {m.incarnation: m.global_rank for m in members}
    workers = [_worker(state, slot, ranks, view) for slot in island.slots if slot.bound and slot.incarnation]
    if state.phase in TERMINAL and not workers:  # who trained last is still worth knowing: their logs are there
        workers = [
            job_pb2.WorkerStatus(
                slot=m.slot, incarnation=m.incarnation, global_rank=m.global_rank, node=m.node, state="ENDED"
            )
            for m in members
        ]
    return job_pb2.IslandStatus(
        id=island.id,
        generation=island.record.generation if island.record is not None else 0,
        generation_phase=island.generation_phase.value,
        workers=workers,
    )


def _worker(state: JobState, slot: Slot, ranks: Mapping[int, int], view: ClusterView) -> job_pb2.WorkerStatus:
    seen = view.worker(state.uid, slot.index, slot.incarnation, slot.agent_incarnation)
    progress = seen.progress if seen is not None else Progress(phase=Phase.BOOTING)
    return job_pb2.WorkerStatus(
        slot=slot.index,
        incarnation=slot.incarnation,
        global_rank=ranks.get(slot.incarnation, -1),
        node=slot.node,
        pid=slot.pid,
        state=slot.state.value,
        step=progress.step,
        phase=progress.phase.value,
        rss_bytes=seen.rss_bytes if seen is not None else 0,
        started_s=slot.started_s,
        transfer=_own_part(progress.transfer),
    )


def _own_part(moving: Transfer | None) -> job_pb2.TransferStatus | None:
    if moving is None:
        return None
    return job_pb2.TransferStatus(
        kind=moving.kind.value,
        step=moving.step,
        done_bytes=moving.done_bytes,
        total_bytes=moving.total_bytes,
        workers=1,
        in_flight=moving.in_flight,
        age_s=moving.age_s,
    )
