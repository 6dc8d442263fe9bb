"""The time between two checkpoints, or two snapshots: chosen when a job begins, and whenever that has other grounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from trainctl.controller.domain import events
from trainctl.controller.domain.failure_rate import failure_rate
from trainctl.controller.domain.goodput import Bucket, totals_s
from trainctl.controller.domain.job_records import Recovery
from trainctl.controller.domain.job_state import JobState
from trainctl.controller.domain.reconcile.work import Work
from trainctl.controller.domain.save_cost import SaveCost
from trainctl.controller.domain.save_interval import (
    CHECKPOINTS,
    SNAPSHOTS,
    CheckpointInterval,
    Kind,
    choose_interval,
    fixed_interval,
)
from trainctl.controller.domain.states import STOPPING
from trainctl.core.records.generation import GenerationRecord
from trainctl.core.records.spec import AUTO
from trainctl.core.units import format_duration, parse_duration_s

_NOT_RUNNING = (Bucket.QUEUED, Bucket.PLACING, Bucket.PAUSED)


def mind_intervals(work: Work) -> None:
    """Tells the workers of a job that saves by time how long that is; an event says why whenever it is another."""
    job, checkpoint = work.job, work.job.spec.spec.checkpoint
    saves = _Given(CHECKPOINTS, checkpoint.interval, job.save_costs, job.checkpoint_interval)
    in_memory = _Given(SNAPSHOTS, checkpoint.snapshots.interval, job.snapshot_figures.costs, job.snapshot_interval)
    if (chosen := _minded(work, saves, events.CHECKPOINT_INTERVAL)) is not None:
        work.set_job(checkpoint_interval=chosen)
    if (chosen := _minded(work, in_memory, events.SNAPSHOT_INTERVAL)) is not None:
        work.set_job(snapshot_interval=chosen)


@dataclass(frozen=True, slots=True)
class _Given:
    """What an interval is chosen from: what the job file says, what was measured, and what held until now."""

    kind: Kind
    text: str
    costs: Sequence[SaveCost]
    before: CheckpointInterval | None


def _minded(work: Work, given: _Given, event: str) -> CheckpointInterval | None:
    """What holds from now on, and an event says so; None: nothing is chosen, or the same."""
    record, before = work.island.record, given.before
    if not given.text or record is None or work.job.phase in STOPPING:
        return None
    chosen = _chosen(work.job, record, given, work.now_s) if given.text == AUTO else _fixed(given, work.now_s)
    if chosen == before:
        return None
    reason, instead = "First", ""
    if before is not None and chosen.interval_s != before.interval_s:
        reason = "Shorter" if chosen.interval_s < before.interval_s else "Longer"
        instead = f" instead of every {format_duration(before.interval_s)}"
    elif before is not None:
        reason, instead = "Same", " as before"
    message = f"a {given.kind.noun} every {format_duration(chosen.interval_s)}{instead}: {chosen.reason}"
    work.emit(event, reason, message, interval_s=f"{chosen.interval_s:.3f}")
    return chosen


def _fixed(given: _Given, now_s: float) -> CheckpointInterval:
    interval_s, before = parse_duration_s(given.text), given.before
    same = before is not None and before.interval_s == interval_s
    return before if before is not None and same else fixed_interval(interval_s, now_s, given.kind)


def _chosen(job: JobState, record: GenerationRecord, given: _Given, now_s: float) -> CheckpointInterval:
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
        costs=given.costs,
        failures=failures,
        restore_s=median(took_s) if took_s else None,
        before=given.before,
        now_s=now_s,
        kind=given.kind,
    )


def _took_s(recovery: Recovery) -> float | None:
    """How long a recovery took that came to its end."""
    return recovery.phases_s.get("total") if recovery.rung not in ("", "none") else None
