"""Finding faults: exits, lost agents, frozen and stuck workers. Only looks; ``faults`` acts.

Unreachable is not failed: silence counts only after ``lost_s``, and never in the settling window of a controller.
"""

from __future__ import annotations

from collections.abc import Mapping

from trainctl.controller.domain.hang import frozen, typical_step_s
from trainctl.controller.domain.job_state import Slot
from trainctl.controller.domain.reconcile.fault import Fault, FaultKind
from trainctl.controller.domain.reconcile.observe import left_finished
from trainctl.controller.domain.reconcile.work import Work
from trainctl.controller.domain.states import STOPPING, SlotState
from trainctl.core.records.spec import NOTHING
from trainctl.core.records.step import Phase
from trainctl.core.records.worker import WorkerObserved, WorkerPhase

_UNSETTLED_LOOK_S = 1.0
"""Nobody tells when silence counts again."""
_SIGNALS: Mapping[int | None, str] = {
    -9: "SIGKILL",
    -11: "SIGSEGV",
    -6: "SIGABRT",
    -15: "SIGTERM",
    -7: "SIGBUS",
    -4: "SIGILL",
    -2: "SIGINT",
}


def find_faults(work: Work) -> tuple[Fault, ...]:
    """Every slot whose worker is gone or must go, judged by the observations of this moment."""
    faults = [_judge(work, slot) for slot in work.slots() if slot.bound]
    return tuple(fault for fault in faults if fault is not None)


def _judge(work: Work, slot: Slot) -> Fault | None:
    gone = _agent_lost(work, slot)
    if gone:
        return Fault(slot=slot.index, kind=FaultKind.AGENT_LOST, reason=gone[0], at_s=work.now_s - gone[1])
    if slot.state is SlotState.EMPTY:
        return None
    seen = work.observed(slot)
    if seen is None:
        return _missing(work, slot)
    if seen.phase is WorkerPhase.EXITED:
        return None if _is_done(work, slot, seen) else _exited(work, slot, seen)
    return _stuck(work, slot, seen)


def _is_done(work: Work, slot: Slot, seen: WorkerObserved) -> bool:
    """Whether a worker that left after the last step is not missed, as when the controller was away for long.

    It is not while all others may have finished, too. Once one of them is lost, a new generation needs this slot again.
    """
    if slot.state is not SlotState.FINISHED or work.job.phase in STOPPING or work.island.proposal is not None:
        return False
    record = work.island.record
    alive = {s.incarnation for s in work.slots() if s.alive}
    return record is not None and left_finished(work, seen) and all(m.incarnation in alive for m in record.members)


def _agent_lost(work: Work, slot: Slot) -> tuple[str, float] | None:
    """Why the slot's agent is lost, and for how long it has been silent; None if it is not lost."""
    agent = work.view.agent(slot.agent_incarnation)
    if agent is not None and agent.process_exited:
        return f"its agent on {slot.node} exited", 0.0
    if work.view.agents.newest(slot.node) > slot.agent_incarnation:
        return f"its agent on {slot.node} was started anew", 0.0
    if not work.view.settled:
        work.wake_at(work.now_s + _UNSETTLED_LOOK_S)
        return None
    if agent is None:
        return f"its agent on {slot.node} is unknown", 0.0
    if agent.last_heard_age_s > work.timeouts.lost_s:
        silent_s = agent.last_heard_age_s
        return f"its agent on {slot.node} is silent for {silent_s:.1f} s (limit {work.timeouts.lost_s:g} s)", silent_s
    work.wake_at(work.now_s + work.timeouts.lost_s - agent.last_heard_age_s + 0.001)
    return None


def verdict_due(work: Work) -> bool:
    """Whether another agent of the job is about to be lost, too.

    Agents that die at once were heard at different times, up to a heartbeat apart, so they are found lost one by one.
    A generation that is prepared without waiting for all of them would be given up again and again.
    """
    if not work.view.settled:
        return False
    agents = {slot.agent_incarnation for slot in work.slots() if slot.bound}
    soon_s = work.timeouts.lost_s - work.view.heartbeat_s
    return any(
        agent is not None and not agent.process_exited and soon_s < agent.last_heard_age_s <= work.timeouts.lost_s
        for agent in map(work.view.agent, agents)
    )


def _exited(work: Work, slot: Slot, seen: WorkerObserved) -> Fault:
    how = f"ended with exit code {seen.exit_code} on {slot.node}"
    if seen.exit_code in _SIGNALS:
        how = f"was ended by {_SIGNALS[seen.exit_code]} on {slot.node}"
    if seen.error is not None:
        when = f"in step {seen.error.step}" if seen.error.step > 0 else "before its first step"
        how = f"raised {seen.error.type} {when} on {slot.node}: {seen.error.message}"
        if work.job.spec.spec.runs_command:
            how = f"failed: {seen.error.message} on {slot.node}"
    return Fault(
        slot=slot.index,
        kind=FaultKind.EXITED,
        reason=how,
        at_s=work.now_s - max(0.0, seen.exited_age_s),
        exit_code=seen.exit_code,
        error=seen.error,
        generation=seen.generation,
    )


def _missing(work: Work, slot: Slot) -> Fault | None:
    """A live agent that does not report a worker: it has not started it yet, or it lost it."""
    agent = work.view.agent(slot.agent_incarnation)
    if agent is None or not agent.connected or not work.view.settled:
        return None
    if slot.state is SlotState.STARTING and not slot.pid:
        if not work.overdue(slot.since_s, work.timeouts.boot_s):
            return None
        reason = f"was not started by its agent on {slot.node} within {work.timeouts.boot_s:g} s"
        return Fault(slot=slot.index, kind=FaultKind.STUCK, reason=reason, at_s=slot.since_s)
    if not slot.missing_since_s:
        work.set_slot(slot.index, missing_since_s=work.now_s)
        work.wake_at(work.now_s + work.timeouts.lost_s)
        return None
    if agent.last_heard_age_s > work.timeouts.suspect_s or not work.overdue(slot.missing_since_s, work.timeouts.lost_s):
        return None
    reason = f"is no longer known to its agent on {slot.node}"
    return Fault(slot=slot.index, kind=FaultKind.EXITED, reason=reason, at_s=slot.missing_since_s)


def _stuck(work: Work, slot: Slot, seen: WorkerObserved) -> Fault | None:
    if not work.view.settled or not slot.alive:
        return None
    frozen = _frozen(work, seen)
    limit = frozen or _boot_late(work, slot) or _prepare_late(work, slot, seen) or _run_late(work, slot, seen)
    if not limit:
        return None
    reason, at_s = limit
    return Fault(
        slot=slot.index,
        kind=FaultKind.STUCK,
        reason=reason,
        at_s=at_s,
        generation=seen.generation,
        frozen=frozen is not None,
    )


def _frozen(work: Work, seen: WorkerObserved) -> tuple[str, float] | None:
    if seen.progress.phase is Phase.COMMAND and work.job.spec.spec.launch.hang.watch != NOTHING:
        return None  # it may be silent for as long as the job file says: see ``trouble``
    record = work.island.record
    first_step = record is not None and seen.progress.step <= record.target_step
    step_s = typical_step_s(work.job.progress.recent_step_s)
    reason = frozen(seen.progress, step_s, work.timeouts, first_step=first_step)
    return (f"is frozen: {reason}", work.now_s - seen.progress.alive_age_s) if reason else None


def _boot_late(work: Work, slot: Slot) -> tuple[str, float] | None:
    if slot.state is not SlotState.STARTING or not work.overdue(slot.since_s, work.timeouts.boot_s):
        return None
    return f"was not ready within {work.timeouts.boot_s:g} s on {slot.node}", slot.since_s


def _prepare_late(work: Work, slot: Slot, seen: WorkerObserved) -> tuple[str, float] | None:
    """It was asked to PREPARE and does not answer, though its agent does."""
    proposal = work.island.proposal
    if proposal is None or slot.state is SlotState.STARTING or not proposal.takes(slot.index):
        return None
    if seen.report is not None and seen.report.prepared_generation == proposal.generation:
        return None
    asked_s = max(proposal.since_s, slot.since_s)
    if not work.overdue(asked_s, work.timeouts.prepare_s):
        return None
    limit_s = work.timeouts.prepare_s
    return f"did not answer PREPARE of generation {proposal.generation} within {limit_s:g} s", asked_s


def _run_late(work: Work, slot: Slot, seen: WorkerObserved) -> tuple[str, float] | None:
    """A member of the committed generation that did not even begin to enter it."""
    island = work.island
    if island.record is None or island.entered or island.proposal is not None or slot.state is not SlotState.ACTIVE:
        return None
    generation = island.record.generation
    waiting = seen.progress.phase in (Phase.READY, Phase.INTERRUPTED, Phase.BOOTING)
    if seen.generation >= generation or seen.progress.generation >= generation or not waiting:
        return None
    if not work.overdue(island.committed_s, work.timeouts.prepare_s):
        return None
    return f"did not begin generation {generation} within {work.timeouts.prepare_s:g} s", island.committed_s
