"""The job's phase: the one place that changes it, with its event, its attempt and its goodput bucket."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from trainctl.controller.domain import events
from trainctl.controller.domain.events import EventDraft
from trainctl.controller.domain.goodput import Bucket, move, switch
from trainctl.controller.domain.job_records import JobFailure
from trainctl.controller.domain.job_state import IslandState, JobState
from trainctl.controller.domain.reconcile.fault import Fault
from trainctl.controller.domain.reconcile.work import Work
from trainctl.controller.domain.states import TERMINAL, AttemptPhase, JobPhase, Machine, SlotState, advance
from trainctl.core.units import format_duration

_ATTEMPT_END: Mapping[JobPhase, AttemptPhase] = {
    JobPhase.SUCCEEDED: AttemptPhase.SUCCEEDED,
    JobPhase.FAILED: AttemptPhase.FAILED,
    JobPhase.CANCELLED: AttemptPhase.CANCELLED,
    JobPhase.QUEUED: AttemptPhase.SUPERSEDED,
    JobPhase.PAUSED: AttemptPhase.SUPERSEDED,
}

_BUCKETS: Mapping[JobPhase, Bucket] = {
    JobPhase.QUEUED: Bucket.QUEUED,
    JobPhase.ADMITTED: Bucket.PLACING,
    JobPhase.RUNNING: Bucket.PRODUCTIVE,
    JobPhase.PAUSING: Bucket.DRAINING,
    JobPhase.PAUSED: Bucket.PAUSED,
    JobPhase.RESTARTING: Bucket.DRAINING,
    JobPhase.COMPLETING: Bucket.DRAINING,
    JobPhase.CANCELLING: Bucket.DRAINING,
    JobPhase.FAILING: Bucket.DRAINING,
}


def move_job(
    job: JobState, to: JobPhase, now_s: float, *, reason: str, message: str
) -> tuple[JobState, tuple[EventDraft, ...]]:
    """The job in phase ``to``, and the event that explains it.

    Raises:
        UnknownTransitionError: the job's table has no such arrow.
    """
    phase = advance(Machine.JOB, job.phase, to)
    changed = replace(job, phase=phase, reason=reason, message=message, phase_since_s=now_s)
    changed = _move_attempt(changed, phase)
    if phase is JobPhase.RUNNING and not job.started_s:
        changed = replace(changed, started_s=now_s)
    if phase in TERMINAL:
        changed = replace(changed, ended_s=now_s)
    event = EventDraft(
        type=events.JOB_PHASE_PREFIX + phase.value.lower(),
        reason=reason,
        message=message,
        fields={"from": job.phase.value, "to": phase.value, "after": format_duration(now_s - job.phase_since_s)},
    )
    return changed, (event,)


def set_phase(work: Work, to: JobPhase, reason: str, message: str) -> None:
    """Moves the job unless it is there already."""
    if work.job.phase is to:
        return
    work.job, drafts = move_job(work.job, to, work.now_s, reason=reason, message=message)
    work.events.extend(drafts)


def wait_in(work: Work, reason: str, message: str) -> None:
    """Says why the job does not go on; an event only when the reason changes."""
    if work.job.reason == reason:
        return
    work.set_job(reason=reason, message=message)
    work.emit(events.JOB_WAITING, reason, message)


def fail_job(work: Work, failure: JobFailure) -> None:
    """The job cannot go on: every worker is condemned, and FAILED follows when they are gone."""
    if work.job.phase in (JobPhase.FAILING, JobPhase.CANCELLING) or work.job.phase in TERMINAL:
        return
    work.set_job(failure=failure)
    set_phase(work, JobPhase.FAILING, failure.code.title().replace("_", ""), failure.message)
    for slot in work.slots():
        if slot.state not in (SlotState.EMPTY, SlotState.CONDEMNED):
            work.move_slot(slot.index, SlotState.CONDEMNED, reason="the job failed")


def _move_attempt(job: JobState, phase: JobPhase) -> JobState:
    if phase is JobPhase.ADMITTED:
        return replace(job, attempt=job.attempt + 1, attempt_phase=AttemptPhase.CREATED)
    if phase is JobPhase.STARTING:
        return _attempt(job, AttemptPhase.BOOTING)
    if phase is JobPhase.RUNNING and job.attempt_phase is AttemptPhase.RESTORING:
        return _attempt(job, AttemptPhase.TRAINING)
    end = _ATTEMPT_END.get(phase)
    if end is not None and job.attempt_phase not in _ATTEMPT_END.values():
        return _attempt(job, end)
    return job


def attempt_restoring(job: JobState) -> JobState:
    """The attempt's first generation is committed."""
    return _attempt(job, AttemptPhase.RESTORING) if job.attempt_phase is AttemptPhase.BOOTING else job


def _attempt(job: JobState, to: AttemptPhase) -> JobState:
    return replace(job, attempt_phase=advance(Machine.ATTEMPT, job.attempt_phase, to))


def book_time(work: Work) -> None:
    """Opens the goodput bucket that fits where the job is now."""
    bucket = _BUCKETS.get(work.job.phase) or _bucket_between(work.island)
    if work.job.phase in TERMINAL:
        bucket = Bucket.DRAINING
    degraded = _missing_share(work) if bucket is Bucket.PRODUCTIVE else 0.0
    work.set_job(goodput=switch(work.job.goodput, bucket, work.now_s, degraded=degraded))


def book_hang(work: Work, fault: Fault) -> None:
    """Books the time since a frozen worker's last sign of life: nobody trained meanwhile."""
    if fault.frozen:
        hung_s = work.now_s - fault.at_s
        work.set_job(goodput=move(work.job.goodput, Bucket.PRODUCTIVE, Bucket.HANG, hung_s, work.now_s))


def _bucket_between(island: IslandState) -> Bucket:
    """Of a job that starts, recovers or resizes."""
    if island.proposal is None:
        return Bucket.RESTORING
    booting = any(s.state is SlotState.STARTING for s in island.slots if island.proposal.takes(s.index))
    return Bucket.BOOTING if booting else Bucket.RENDEZVOUS


def _missing_share(work: Work) -> float:
    record = work.island.record
    wanted = work.target_groups * work.per_node
    return 0.0 if record is None else max(0.0, 1.0 - record.world_size / wanted)
