"""Trouble in a committed generation although every member lives: the same members try again under the next number."""

from __future__ import annotations

from trainctl.controller.domain.goodput import Bucket, move
from trainctl.controller.domain.hang import silent_rank
from trainctl.controller.domain.reconcile.budgets import charge_process
from trainctl.controller.domain.reconcile.command_budget import charge_command
from trainctl.controller.domain.reconcile.fault import Fault, FaultKind
from trainctl.controller.domain.reconcile.lifecycle import fail_job
from trainctl.controller.domain.reconcile.recoveries import begin_recovery
from trainctl.controller.domain.reconcile.work import Work
from trainctl.core.records.spec import LOG
from trainctl.core.records.step import Phase


def mind_trouble(work: Work) -> str:
    """Why the members must rebuild their group, with the recovery begun; empty if all is well."""
    if not work.view.settled:
        return ""
    found = _interrupted(work) or _store_gone(work) or _silent(work)
    if found is None:
        return ""
    fault = Fault(slot=found[0], kind=FaultKind.STUCK, reason=found[1], at_s=work.now_s)
    begin_recovery(work, [fault])
    runs_command = work.job.spec.spec.runs_command
    failure = charge_command(work, fault) if runs_command else charge_process(work, fault)
    if failure is not None:
        fail_job(work, failure)
        return ""
    return f"worker {found[0]} {found[1]}"


def _interrupted(work: Work) -> tuple[int, str] | None:
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
            return (
                member.slot,
                f"was interrupted in generation {record.generation} {age_s:.1f} s ago, though nobody is lost",
            )
    return None


def _silent(work: Work) -> tuple[int, str] | None:
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
    work.set_job(goodput=move(work.job.goodput, Bucket.PRODUCTIVE, Bucket.HANG, silent_s, work.now_s))
    sign = "printed nothing" if hang.watch == LOG else "did not touch its heartbeat file"
    member = record.members[rank]
    return member.slot, f"(rank {rank}) on {member.node} {sign} for {silent_s:.1f} s (limit {hang.after})"


def _store_gone(work: Work) -> tuple[int, str] | None:
    """The collective store that the members are about to meet at is no longer there."""
    record = work.island.record
    if record is None or work.island.entered:
        return None
    lost_s = work.timeouts.lost_s
    there = any(
        a.store_address == record.store_address and not a.process_exited and a.last_heard_age_s <= lost_s
        for a in work.view.agents
    )
    return None if there else (record.members[0].slot, f"lost the collective store at {record.store_address}")
