"""Acting on faults: slots are emptied or condemned, budgets charged, a recovery begun."""

from __future__ import annotations

from collections.abc import Sequence

from trainctl.controller.domain import events
from trainctl.controller.domain.reconcile.budgets import charge, worker_of
from trainctl.controller.domain.reconcile.command_budget import charge_command
from trainctl.controller.domain.reconcile.fault import Fault, FaultKind, are_lost
from trainctl.controller.domain.reconcile.lifecycle import book_hang, fail_job
from trainctl.controller.domain.reconcile.recoveries import abandon_recovery, begin_recovery
from trainctl.controller.domain.reconcile.work import Work
from trainctl.controller.domain.states import STOPPING, JobPhase, SlotState


def apply_faults(work: Work, faults: Sequence[Fault]) -> None:
    """Carries the conclusions out, in slot order; of a command in the order they happened: the first is the cause."""
    if work.job.spec.spec.runs_command:
        faults = sorted(faults, key=lambda fault: fault.at_s)
    unexpected = [fault for fault in faults if _is_news(work, fault)]
    members = _member_incarnations(work)
    hit = [fault for fault in unexpected if work.slot(fault.slot).incarnation in members]
    if hit and work.job.phase not in STOPPING:
        begin_recovery(work, hit)
    _tell_lost_agents(work, faults)
    for fault in faults:
        _apply(work, fault, news=fault in unexpected, member=fault in hit)


def _tell_lost_agents(work: Work, faults: Sequence[Fault]) -> None:
    lost: dict[int, list[Fault]] = {}
    for fault in faults:
        if fault.kind is FaultKind.AGENT_LOST:
            lost.setdefault(work.slot(fault.slot).agent_incarnation, []).append(fault)
    for agent, group in lost.items():
        slot = work.slot(group[0].slot)
        message = f"{group[0].reason.removeprefix('its ')}; {are_lost([f.slot for f in group])} with it"
        work.emit(events.AGENT_LOST, "AgentLost", message, node=slot.node, agent=agent)


def _is_news(work: Work, fault: Fault) -> bool:
    """Not the end of a worker that was on its way out anyway, and not the loss of an empty slot's place."""
    return work.slot(fault.slot).alive and work.job.phase not in STOPPING


def _member_incarnations(work: Work) -> frozenset[int]:
    island = work.island
    members = island.proposal.members if island.proposal else island.record.members if island.record else ()
    return frozenset(m.incarnation for m in members)


def _apply(work: Work, fault: Fault, *, news: bool, member: bool) -> None:
    slot = work.slot(fault.slot)
    newcomer = news and not member
    budget = charge_command if work.job.spec.spec.runs_command else charge
    failure = budget(work, fault) if news and not newcomer else None
    if slot.state is not SlotState.EMPTY:
        _tell(work, fault, news=news)
    if fault.kind is FaultKind.STUCK:
        _condemn(work, fault)
    else:
        _clear(work, fault)
    if newcomer:
        _give_up_group(work, fault)
    if failure is not None:
        _tell_failure(work, fault)
        abandon_recovery(work, "the job failed")
        fail_job(work, failure)


def _condemn(work: Work, fault: Fault) -> None:
    work.move_slot(fault.slot, SlotState.CONDEMNED, reason=fault.reason)
    if work.job.phase is JobPhase.RUNNING:
        book_hang(work, fault)


def _clear(work: Work, fault: Fault) -> None:
    """The worker is gone. A slot that was draining gives up its place, unless a new worker is to take it over at once;
    one whose agent is lost has none any more.
    """  # noqa: D205 - one sentence
    slot = work.slot(fault.slot)
    leaves = slot.state is SlotState.DRAINING and work.job.phase is not JobPhase.RESTARTING
    unbind = fault.kind is FaultKind.AGENT_LOST or leaves or work.job.phase in STOPPING
    if slot.state is SlotState.EMPTY:
        work.set_slot(fault.slot, node="", agent_incarnation=0, address="")
    else:
        work.empty_slot(fault.slot, unbind=unbind)


def _give_up_group(work: Work, fault: Fault) -> None:
    """A newcomer that nobody counts on yet failed: its node is not tried again at once, and no budget is charged."""
    group = fault.slot // work.per_node
    work.set_island(grow_after_s=work.now_s + max(10.0, work.timeouts.replacement_wait_s))
    for slot in work.slots():
        if slot.index // work.per_node != group:
            continue
        if slot.alive:
            work.move_slot(slot.index, SlotState.DRAINING, reason=f"new worker {fault.slot} on its node failed")
        elif slot.state is SlotState.EMPTY and slot.bound:
            work.set_slot(slot.index, node="", agent_incarnation=0, address="")


def _tell(work: Work, fault: Fault, *, news: bool) -> None:
    slot = work.slot(fault.slot)
    name = worker_of(work, fault)
    details = {"slot": fault.slot, "incarnation": slot.incarnation, "node": slot.node, "exit_code": fault.exit_code}
    if fault.kind is FaultKind.STUCK:
        message = f"{name} {fault.reason}; it is killed and replaced once its exit is confirmed"
        work.emit(events.WORKER_CONDEMNED, "Condemned", message, **details)
    elif fault.kind is FaultKind.AGENT_LOST:
        work.emit(events.WORKER_LOST, "AgentLost", f"{name} is lost: {fault.reason}", **details)
    else:
        reason = "Unexpected" if news else "Expected"
        work.emit(events.WORKER_EXITED, reason, f"{name} {fault.reason}", **details)


def _tell_failure(work: Work, fault: Fault) -> None:
    if fault.error is None:
        return
    tail = "\n".join(fault.error.log_tail[-20:])
    details = {"slot": fault.slot, "traceback": fault.error.traceback, "log_tail": tail, "step": fault.error.step}
    work.emit(events.WORKER_FAILED, fault.error.code, f"worker {fault.slot} {fault.reason}", **details)
