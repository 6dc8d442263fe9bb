"""Restart budgets of a command: all ranks stop with the first that fails, so a generation is charged once.

Exit codes count as the user's, signals and lost workers as crashes. Ranks fail after each other: what ends after the
charge of its generation is an echo. One correction: a worker that vanished without a word was no echo, and may be what
the exit codes of others, seen first, were about.
"""

from __future__ import annotations

from dataclasses import replace

from trainctl.controller.domain.job_records import JobFailure, UserFault
from trainctl.controller.domain.reconcile.budgets import DETERMINISTIC_HINTS, charge_process, failure_of
from trainctl.controller.domain.reconcile.fault import Fault, FaultKind
from trainctl.controller.domain.reconcile.work import Work
from trainctl.parallel.plan.command_errors import CommandError

_HINT = "the log lines before it: `trainctl logs {name}`; spec.recovery.maxRestarts.user allows more tries"


def charge_command(work: Work, fault: Fault) -> JobFailure | None:
    """Charges a fault of a command's worker; the failure of the job if there is nothing left to try."""
    record = work.island.record
    generation = record.generation if record is not None and _ran(work, fault) else 0
    if generation and work.job.restarts.incident == generation:
        return _correct(work, fault, generation)
    code = fault.error.code if fault.error is not None else ""
    if code in DETERMINISTIC_HINTS:
        return failure_of(work, fault, code, "cannot go on", DETERMINISTIC_HINTS[code])
    if not generation and fault.kind is FaultKind.AGENT_LOST and fault.slot % work.per_node:
        return None  # an agent is lost once, with however many workers
    failure = _charge_exit(work, fault, generation) if code == CommandError.code else charge_process(work, fault)
    if failure is None:
        restarts = work.job.restarts
        incident = generation or restarts.incident
        work.set_job(restarts=replace(restarts, total=restarts.total + 1, incident=incident))
    return failure


def _ran(work: Work, fault: Fault) -> bool:
    """Whether the fault hit a member of the committed generation."""
    record, incarnation = work.island.record, work.slot(fault.slot).incarnation
    return record is not None and any(m.incarnation == incarnation for m in record.members)


def _charge_exit(work: Work, fault: Fault, generation: int) -> JobFailure | None:
    assert fault.error is not None
    budget = work.job.spec.spec.recovery.max_restarts.user
    new = UserFault(type=fault.error.type, message=fault.error.message, step=0, generation=generation, slot=fault.slot)
    restarts = work.job.restarts
    if len(restarts.user) >= budget:
        why = f"maxRestarts.user ({budget}) is used up"
        return failure_of(work, fault, fault.error.code, why, _HINT.format(name=work.job.name))
    work.set_job(restarts=replace(restarts, user=(*restarts.user, new)))
    return None


def _correct(work: Work, fault: Fault, generation: int) -> JobFailure | None:
    restarts = work.job.restarts
    left = tuple(old for old in restarts.user if old.generation != generation)
    if fault.error is not None or left == restarts.user:
        return None
    work.set_job(restarts=replace(restarts, user=left))
    return charge_process(work, fault)
