"""Whether a fault may be met by trying again: restart budgets, and errors that come again whatever one does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum

from trainctl.controller.domain import events
from trainctl.controller.domain.job_records import JobFailure, UserFault
from trainctl.controller.domain.reconcile.fault import Fault, FaultKind
from trainctl.controller.domain.reconcile.refused import refuse_checkpoint, refused_lines, sources
from trainctl.controller.domain.reconcile.work import Work
from trainctl.core.errors import DamagedCheckpointError, StorageAwayError
from trainctl.core.records.worker import WorkerError
from trainctl.core.units import parse_duration_s

_LOST_SNAPSHOTS = 8
"""Names that are kept: there are never more than a few snapshots at a time."""


class FaultClass(StrEnum):
    """Which budget a fault is charged to (control-plane reference 4.2)."""

    DETERMINISTIC = "deterministic"
    """Fails the job at once: the same thing would happen again."""
    USER = "user"
    PROCESS = "process"
    NODE = "node"
    """Not charged: machines fail, that is what this is for."""


DETERMINISTIC_HINTS: Mapping[str, str] = {
    "DATA_UNUSABLE": "check what spec.train.data and spec.train.tokenizer name, and that every node can read it; "
    "spec.train.data.corrupt.policy: skip leaves damaged records out",
    "CHECKPOINT_UNUSABLE": "restore its files from a copy, or name another with resumeFrom",
    "CHECKPOINT_DAMAGED": "restore the files of one of them from a copy and name it with resumeFrom, or start again",
    "CHECKPOINT_UNFIT": "model or optimizer were changed since: use the code and the job file that it was saved with",
    "STORAGE_REFUSED": "give the workers what they need to read there: permission, credentials, the right bucket",
    "SPEC_INVALID": "correct the job file and submit it again",
    "PLAN_IMPOSSIBLE": "change what does not fit: the spec, the resources, or what the program registers",
    "PERMISSION_DENIED": "give the worker's user access to that path",
    "NOT_FOUND": "check the path or name in the job file",
    "COMMAND_UNUSABLE": "every node needs the program and its folder at the same path, with the rights to use them",
    "PROGRAM_UNUSABLE": "correct the program: the worker runs it again only as a new job",
    "SECRET_UNUSABLE": "give every agent a folder with that secret: --secrets DIR, one file a name, mode 600",
    "FAILED_PRECONDITION": "correct the program; docs/howto/loops.md says what a session expects",
    "SCHEMA_MISMATCH": "all nodes must run the same version with the same spec",
}
"""Error codes that no restart cures, and what does where the worker has no hint of its own."""

_USER_HINT = "the log lines before it: `trainctl logs {name}`; the same exception in the same step is not tried again"


def classify(fault: Fault) -> FaultClass:
    """Whom a fault is charged to."""
    if fault.kind is FaultKind.AGENT_LOST:
        return FaultClass.NODE
    if fault.error is None:
        return FaultClass.PROCESS
    if fault.error.code in ("STATE_LOST", "SNAPSHOT_LOST"):  # the machines that it was lost with are to blame
        return FaultClass.NODE
    if fault.error.code in DETERMINISTIC_HINTS:
        return FaultClass.DETERMINISTIC
    return FaultClass.USER if fault.error.code == "USER_EXCEPTION" else FaultClass.PROCESS


def charge(work: Work, fault: Fault) -> JobFailure | None:
    """Charges a fault to its budget; the failure of the job if there is nothing left to try."""
    kind = classify(fault)
    if fault.error is not None and fault.error.code == "SNAPSHOT_LOST":
        _give_up_snapshot(work, fault.error)
    if kind is FaultClass.NODE or _goes_back(work, fault):
        return None
    failure = _judge(work, fault, kind)
    if failure is None:
        work.set_job(restarts=replace(work.job.restarts, total=work.job.restarts.total + 1))
    return failure


def _give_up_snapshot(work: Work, error: WorkerError) -> None:
    """What could not be loaded is not tried again: the next decision looks further down the ladder."""
    record = work.island.record
    if record is None or record.snapshot is None or record.snapshot.attempt in work.job.lost_snapshots:
        return
    work.set_job(lost_snapshots=(*work.job.lost_snapshots, record.snapshot.attempt)[-_LOST_SNAPSHOTS:])
    message = f"{error.message}; it is not tried again"
    work.emit(events.SNAPSHOT_REJECTED, "Unusable", message, step=record.snapshot.step, lineage=record.snapshot.lineage)


def _judge(work: Work, fault: Fault, kind: FaultClass) -> JobFailure | None:
    if fault.error is not None and refuse_checkpoint(work, fault):
        return charge_process(work, fault) if sources(work.job) else _none_left(work, fault, fault.error)
    if fault.error is not None and fault.error.code == StorageAwayError.code:
        return _charge_storage(work, fault)
    if fault.error is not None and kind is FaultClass.DETERMINISTIC:
        hint = fault.error.hint or DETERMINISTIC_HINTS[fault.error.code]
        return failure_of(work, fault, fault.error.code, "cannot go on", hint)
    if fault.error is not None and kind is FaultClass.USER:
        return _charge_user(work, fault, fault.error)
    return charge_process(work, fault)


def _goes_back(work: Work, fault: Fault) -> bool:
    """A damaged checkpoint is nobody's crash, and there are only so many of them; a worker of an older version does not
    say which one it was.
    """  # noqa: D205 - one sentence
    known = fault.error is not None and bool(fault.error.checkpoint) and refuse_checkpoint(work, fault)
    return known and bool(sources(work.job))


def _none_left(work: Work, fault: Fault, error: WorkerError) -> JobFailure:
    hint = DETERMINISTIC_HINTS[DamagedCheckpointError.code]
    why = f"no checkpoint is left, every one was found damaged:{refused_lines(work.job)}"
    return failure_of(work, fault, error.code, why, hint)


def _charge_storage(work: Work, fault: Fault) -> JobFailure | None:
    """A storage that is away is one incident of a generation, on however many ranks."""
    record, restarts = work.island.record, work.job.restarts
    if record is None or record.generation != restarts.incident:
        work.set_job(restarts=replace(restarts, incident=record.generation if record is not None else 0))
        return charge_process(work, fault)
    return None


def _charge_user(work: Work, fault: Fault, error: WorkerError) -> JobFailure | None:
    """One incident counts once, on however many ranks; in a later generation or again in the same slot it is final."""
    new = UserFault(
        type=error.type, message=error.message, step=error.step, generation=fault.generation, slot=fault.slot
    )
    earlier = work.job.restarts.user
    same = [old for old in earlier if (old.type, old.message, old.step) == (new.type, new.message, new.step)]
    hint = _USER_HINT.format(name=work.job.name)
    if any(old.generation != new.generation or old.slot == new.slot for old in same):
        return failure_of(work, fault, error.code, "the same exception in the same step again", hint)
    work.set_job(restarts=replace(work.job.restarts, user=(*earlier, new)))
    budget = work.job.spec.spec.recovery.max_restarts.user
    incidents = {(old.generation, old.type, old.message, old.step) for old in (*earlier, new)}
    if len(incidents) > budget:
        return failure_of(work, fault, error.code, f"restart budget for user exceptions ({budget}) used up", hint)
    return None


def charge_process(work: Work, fault: Fault) -> JobFailure | None:
    """Charges one crash to the sliding window."""
    limits = work.job.spec.spec.recovery.max_restarts
    window_s = parse_duration_s(limits.window)
    recent = tuple(s for s in work.job.restarts.process_s if s > work.now_s - window_s)
    work.set_job(restarts=replace(work.job.restarts, process_s=(*recent, work.now_s)))
    if len(recent) + 1 <= limits.process:
        return None
    why = f"process crash number {len(recent) + 1} within {limits.window}, maxRestarts.process is {limits.process}"
    hint = f"find the cause in `trainctl logs {work.job.name}`, or raise spec.recovery.maxRestarts.process"
    return failure_of(work, fault, "RESTART_BUDGET", why, hint)


def failure_of(work: Work, fault: Fault, code: str, why: str, hint: str) -> JobFailure:
    """The job's failure by a fault that is not met by trying again."""
    slot = work.slot(fault.slot)
    rank = rank_of(work, fault.slot)
    where = worker_of(work, fault)
    generation = f", generation {fault.generation}" if fault.generation else ""
    return JobFailure(
        code=code,
        message=f"job {work.job.name}, {work.island.id}{generation}: {where} {fault.reason}; {why}",
        hint=hint,
        slot=fault.slot,
        global_rank=rank,
        node=slot.node,
        generation=fault.generation,
        error=fault.error,
    )


def worker_of(work: Work, fault: Fault) -> str:
    """The worker by slot and rank, as the subject of the fault's reason, which may begin with the rank itself."""
    rank = rank_of(work, fault.slot)
    return f"worker {fault.slot}" + (f" (rank {rank})" if rank >= 0 and not fault.reason.startswith("(rank") else "")


def rank_of(work: Work, slot: int) -> int:
    """The slot's rank in the last committed generation (before the first: the one it shall have), -1 if it had none."""
    record, proposal = work.island.record, work.island.proposal
    if record is None and proposal is not None and proposal.takes(slot):
        return proposal.slots.index(slot)  # the rank order is the slot order
    members = record.members if record is not None else ()
    return next((m.global_rank for m in members if m.slot == slot), -1)
