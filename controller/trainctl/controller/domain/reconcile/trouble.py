"""Trouble in a committed generation although every member lives: the same members try again under the next number."""

from __future__ import annotations

from dataclasses import replace

from trainctl.controller.domain.hang import silent_rank
from trainctl.controller.domain.reconcile.budgets import charge_process
from trainctl.controller.domain.reconcile.command_budget import charge_command
from trainctl.controller.domain.reconcile.fault import Fault, FaultKind
from trainctl.controller.domain.reconcile.lifecycle import book_hang, fail_job
from trainctl.controller.domain.reconcile.recoveries import begin_recovery
from trainctl.controller.domain.reconcile.work import Work
from trainctl.core.records.spec import LOG
from trainctl.core.records.step import Phase


def mind_trouble(work: Work) -> str:
    """Why the members must rebuild their group, with the recovery begun; empty if all is well."""
    if not work.view.settled:
        return ""
    fault = _interrupted(work) or _store_gone(work) or _silent(work)
    if fault is None:
        return ""
    book_hang(work, fault)
    begin_recovery(work, [fault])
    runs_command = work.job.spec.spec.runs_command
    failure = charge_command(work, fault) if runs_command else charge_process(work, fault)
    if failure is not None:
        fail_job(work, failure)
        return ""
    return f"worker {fault.slot} {fault.reason}"


def _stuck(work: Work, slot: int, reason: str) -> Fault:
    return Fault(slot=slot, kind=FaultKind.STUCK, reason=reason, at_s=work.now_s)


def _interrupted(work: Work) -> Fault | None:
    """A member that left its step because a collective failed, while nobody is known to be lost."""
    record = work.island.record
    if record is None:
        return None
    for member in record.members:
        seen = work.observed(work.slot(member.slot))
        if seen is None or seen.progress.generation != record.generation:
            continue
        age_s = seen.progress.phase_age_s
        if seen.progress.phase is Phase.INTERRUPTED and age_s > work.timeouts.suspect_s:
            reason = f"was interrupted in generation {record.generation} {age_s:.1f} s ago, though nobody is lost"
            return _stuck(work, member.slot, reason)
    return None


def _silent(work: Work) -> Fault | None:
    """A rank whose command shows no sign of life for longer than the job file allows."""
    record, hang = work.island.record, work.job.spec.spec.launch.hang
    if record is None or not work.job.spec.spec.runs_command:
        return None
    workers = {m.global_rank: work.observed(work.slot(m.slot)) for m in record.members}
    seen = {rank: worker.progress for rank, worker in workers.items() if worker is not None}
    running = {
        rank: progress
        for rank, progress in seen.items()
        if progress.phase is Phase.COMMAND and progress.generation == record.generation
    }
    rank = silent_rank(running, hang, work.timeouts)
    if rank is None:
        return None
    silent_s = seen[rank].alive_age_s
    sign = "printed nothing" if hang.watch == LOG else "did not touch its heartbeat file"
    member = record.members[rank]
    reason = f"(rank {rank}) on {member.node} {sign} for {silent_s:.1f} s (limit {hang.after})"
    return replace(_stuck(work, member.slot, reason), at_s=work.now_s - silent_s, frozen=True)


def _store_gone(work: Work) -> Fault | None:
    """The collective store that the members are about to meet at is no longer there."""
    record = work.island.record
    if record is None or work.island.entered:
        return None
    lost_s = work.timeouts.lost_s
    there = any(
        a.store_address == record.store_address and not a.process_exited and a.last_heard_age_s <= lost_s
        for a in work.view.agents
    )
    return (
        None if there else _stuck(work, record.members[0].slot, f"lost the collective store at {record.store_address}")
    )
