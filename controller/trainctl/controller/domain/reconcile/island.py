"""One pass over one island of one job, concern by concern. Read this file first."""

from __future__ import annotations

from collections.abc import Mapping

from trainctl.controller.domain.goodput import Bucket
from trainctl.controller.domain.job_records import JobFailure
from trainctl.controller.domain.job_state import JobState
from trainctl.controller.domain.reconcile.commit import accept_evidence, commit
from trainctl.controller.domain.reconcile.detect import find_faults
from trainctl.controller.domain.reconcile.enter import complete, enter
from trainctl.controller.domain.reconcile.faults import apply_faults
from trainctl.controller.domain.reconcile.halt import halt
from trainctl.controller.domain.reconcile.interval import mind_intervals
from trainctl.controller.domain.reconcile.lifecycle import book_time, fail_job, set_phase
from trainctl.controller.domain.reconcile.observe import observe_agents, observe_slots, observe_snapshots
from trainctl.controller.domain.reconcile.place import fill, place
from trainctl.controller.domain.reconcile.propose import propose
from trainctl.controller.domain.reconcile.result import IdSource, Reconciliation
from trainctl.controller.domain.reconcile.stop import mind_draining, stop
from trainctl.controller.domain.reconcile.work import Work
from trainctl.controller.domain.states import STOPPING, TERMINAL, JobPhase
from trainctl.controller.domain.view import ClusterView
from trainctl.core.units import parse_duration_s


def reconcile(
    state: JobState, view: ClusterView, free: Mapping[int, int], now_s: float, epoch: int, new_ids: IdSource
) -> Reconciliation:
    """One level-triggered pass: from what is true and what is seen to what shall be true next. Pure.

    Args:
        state: the persisted truth of the job.
        view: what is seen of the cluster.
        free: slots of each agent (by incarnation) that no job uses.
        now_s: Unix seconds on a clock that never goes back.
        epoch: fencing epoch of the leader that calls.
        new_ids: fresh identities; only taken when something new is started or committed.

    Returns:
        The next state with the events that explain it. Calling again with it and the same view changes nothing more
        than passing time does.
    """
    if state.phase in TERMINAL:
        return Reconciliation(state=state)
    work = Work(state, state.sole_island.id, view, free, now_s, epoch, new_ids)
    _note_leader(work)
    observe_agents(work)
    observe_slots(work)
    observe_snapshots(work)
    accept_evidence(work)
    apply_faults(work, find_faults(work))
    mind_draining(work)
    _mind_deadline(work)
    if work.job.phase not in STOPPING and not complete(work) and not halt(work):
        _go_on(work)
    if work.job.phase in STOPPING:
        stop(work)
    mind_intervals(work)
    book_time(work)
    return work.result()


def _note_leader(work: Work) -> None:
    if work.job.epoch != work.epoch:
        work.set_job(epoch=work.epoch, epoch_since_s=work.now_s)


def _go_on(work: Work) -> None:
    job, island = work.job, work.island
    propose(work)
    if work.job.phase in STOPPING:
        return
    place(work)
    fill(work)
    if work.job is not job or work.island is not island:
        propose(work)
    if work.job.phase is JobPhase.ADMITTED and any(slot.pid for slot in work.slots()):
        set_phase(work, JobPhase.STARTING, "WorkersBoot", "the first worker process runs")
    if work.job.phase in STOPPING:
        return
    commit(work)
    enter(work)


def _mind_deadline(work: Work) -> None:
    """Time in PAUSED does not count: a job that somebody paused is not ended behind their back."""
    text = work.job.spec.spec.scheduling.active_deadline
    if not text or work.job.phase in STOPPING or work.job.phase is JobPhase.PAUSED:
        return
    paused_s = work.job.goodput.closed_us.get(Bucket.PAUSED, 0) / 1e6
    if not work.due(work.job.submitted_s + parse_duration_s(text) + paused_s):
        return
    message = f"job {work.job.name} is older than spec.scheduling.activeDeadline ({text}), time in PAUSED not counted"
    fail_job(work, JobFailure(code="ACTIVE_DEADLINE", message=message, hint="raise or remove the deadline"))
