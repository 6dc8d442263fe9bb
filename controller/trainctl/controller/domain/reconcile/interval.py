"""The time between two checkpoints: chosen when a job begins, and again when what it was chosen from has changed."""

from __future__ import annotations

from statistics import median

from trainctl.controller.domain import events
from trainctl.controller.domain.failure_rate import failure_rate
from trainctl.controller.domain.goodput import Bucket, totals_s
from trainctl.controller.domain.job_records import Recovery
from trainctl.controller.domain.job_state import JobState
from trainctl.controller.domain.reconcile.work import Work
from trainctl.controller.domain.save_interval import CheckpointInterval, choose_interval, fixed_interval
from trainctl.controller.domain.states import STOPPING
from trainctl.core.records.generation import GenerationRecord
from trainctl.core.records.spec import AUTO
from trainctl.core.units import format_duration, parse_duration_s

_NOT_RUNNING = (Bucket.QUEUED, Bucket.PLACING, Bucket.PAUSED)


def mind_interval(work: Work) -> None:
    """Tells the workers of a job that saves by time how long that is; an event says why whenever it is another."""
    text, record, before = work.job.spec.spec.checkpoint.interval, work.island.record, work.job.checkpoint_interval
    if not text or record is None or work.job.phase in STOPPING:
        return
    chosen = _chosen(work.job, record, work.now_s) if text == AUTO else _fixed(text, before, work.now_s)
    if chosen == before:
        return
    work.set_job(checkpoint_interval=chosen)
    reason, instead = "First", ""
    if before is not None and chosen.interval_s != before.interval_s:
        reason = "Shorter" if chosen.interval_s < before.interval_s else "Longer"
        instead = f" instead of every {format_duration(before.interval_s)}"
    elif before is not None:
        reason, instead = "Same", " as before"
    message = f"a checkpoint every {format_duration(chosen.interval_s)}{instead}: {chosen.reason}"
    work.emit(events.CHECKPOINT_INTERVAL, reason, message, interval_s=f"{chosen.interval_s:.3f}")


def _fixed(text: str, before: CheckpointInterval | None, now_s: float) -> CheckpointInterval:
    interval_s = parse_duration_s(text)
    return before if before is not None and before.interval_s == interval_s else fixed_interval(interval_s, now_s)


def _chosen(job: JobState, record: GenerationRecord, now_s: float) -> CheckpointInterval:
    """Every failure counts, also one that cost nothing since a peer held the state: none may, next time."""
    faults = [recovery for recovery in job.recoveries if not recovery.planned]
    spent_s = totals_s(job.goodput, now_s)
    failures = failure_rate(
        nodes=len({member.node for member in record.members}),
        ran_s=sum(spent_s.values()) - sum(spent_s[bucket] for bucket in _NOT_RUNNING),
        ages_s=[now_s - fault.started_s for fault in faults],
    )
    took_s = [took for fault in faults if (took := _took_s(fault)) is not None]
    return choose_interval(
        costs=job.save_costs,
        failures=failures,
        restore_s=median(took_s) if took_s else None,
        before=job.checkpoint_interval,
        now_s=now_s,
    )


def _took_s(recovery: Recovery) -> float | None:
    """How long a recovery took that came to its end."""
    return recovery.phases_s.get("total") if recovery.rung not in ("", "none") else None
