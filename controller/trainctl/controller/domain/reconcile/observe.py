"""What the observations add to the state when nothing is wrong: workers became ready, finished, agents are silent."""

from __future__ import annotations

from trainctl.controller.domain import events, snapshots
from trainctl.controller.domain.job_state import Slot
from trainctl.controller.domain.reconcile.work import Work
from trainctl.controller.domain.states import SlotState
from trainctl.core.records.snapshot import SnapshotsMade
from trainctl.core.records.spec import AUTO
from trainctl.core.records.step import Phase
from trainctl.core.records.worker import WorkerObserved, WorkerPhase

NOTICES_KEPT = 64


def observe_slots(work: Work) -> None:
    """Notes process ids and the phases that workers reached."""
    for slot in work.slots():
        seen = work.observed(slot) if slot.alive else None
        if seen is None:
            continue
        _pass_on(work, slot, seen)
        if seen.phase is WorkerPhase.EXITED:
            if slot.state is SlotState.ACTIVE and left_finished(work, seen):
                work.move_slot(slot.index, SlotState.FINISHED)
            continue
        if seen.pid != slot.pid or slot.missing_since_s:
            work.set_slot(slot.index, pid=seen.pid, missing_since_s=0.0)
        if seen.steps and seen.steps != work.job.program_steps:
            work.set_job(program_steps=seen.steps)
        _move_on(work, slot, seen)


def _pass_on(work: Work, slot: Slot, seen: WorkerObserved) -> None:
    """Each notice becomes one event, however often it is observed and whoever else says the same."""
    fresh = [notice for notice in seen.notices if notice not in work.job.notices]
    for notice in fresh:
        message = f"worker {slot.index} on {slot.node}: {notice}"
        work.emit(events.WORKER_NOTICE, "Notice", message, slot=slot.index, node=slot.node)
    if fresh:
        work.set_job(notices=(*work.job.notices, *fresh)[-NOTICES_KEPT:])


def observe_snapshots(work: Work) -> None:
    """Notes what workers tell of snapshots in the memory of their nodes; also those that have ended since."""
    record = work.island.record
    spec = work.job.spec.spec.checkpoint.snapshots
    if record is None or not spec.wanted:
        return
    by_node: dict[str, SnapshotsMade] = {}
    heard: set[str] = set()
    for slot in work.slots():
        seen = work.observed(slot)
        if seen is None or not slot.node:
            continue
        if slot.alive and seen.phase is not WorkerPhase.EXITED:
            heard.add(slot.node)
        if seen.snapshots is not None and seen.snapshots.generation == record.generation:
            by_node[slot.node] = max(by_node.get(slot.node, seen.snapshots), seen.snapshots, key=lambda one: one.made)
    figures = snapshots.told(
        work.job.snapshot_figures,
        by_node,
        generation=record.generation,
        nodes=heard,
        now_s=work.now_s,
        epoch=work.epoch,
    )
    if spec.interval == AUTO:
        figures = snapshots.with_costs(figures, work.job.snapshot_figures, by_node, work.job.progress)
    if figures != work.job.snapshot_figures:
        work.set_job(snapshot_figures=figures)


def left_finished(work: Work, seen: WorkerObserved) -> bool:
    """Whether a worker ended in good order after the job's last step: nobody told it to stop for too long."""
    record = work.island.record
    return (
        record is not None
        and seen.phase is WorkerPhase.EXITED
        and seen.exit_code == 0
        and seen.generation == record.generation
        and seen.progress.phase is Phase.FINISHED
    )


def _move_on(work: Work, slot: Slot, seen: WorkerObserved) -> None:
    begun = seen.phase.known and seen.phase is not WorkerPhase.STARTING
    if slot.state is SlotState.STARTING and begun:
        work.move_slot(slot.index, SlotState.READY)
        took = work.now_s - slot.since_s
        message = f"worker {slot.index} (process {seen.pid}) on {slot.node} is ready after {took:.1f} s"
        work.emit(events.WORKER_READY, "Ready", message, slot=slot.index, incarnation=slot.incarnation, node=slot.node)
    elif slot.state is SlotState.ACTIVE and seen.phase is WorkerPhase.FINISHED:
        record = work.island.record
        if record is not None and seen.generation == record.generation:
            work.move_slot(slot.index, SlotState.FINISHED)


def observe_agents(work: Work) -> None:
    """Keeps the list of silent agents of this job, with an event when one falls silent and when it is back."""
    bound = {slot.agent_incarnation: slot.node for slot in work.island.slots if slot.bound}
    suspects: list[int] = []
    for incarnation, node in sorted(bound.items()):
        agent = work.view.agent(incarnation)
        silent_s = agent.last_heard_age_s if agent is not None else 0.0
        if silent_s <= work.timeouts.suspect_s:
            if agent is not None:
                work.wake_at(work.now_s + work.timeouts.suspect_s - silent_s + 0.001)
            continue
        suspects.append(incarnation)
        if incarnation not in work.job.suspects:
            message = f"agent on {node} is silent for {silent_s:.1f} s; lost after {work.timeouts.lost_s:g} s"
            work.emit(events.AGENT_SUSPECT, "Silent", message, node=node, agent=incarnation)
    for incarnation in work.job.suspects:
        if incarnation in bound and incarnation not in suspects:
            message = f"agent on {bound[incarnation]} is heard again; nothing was changed"
            work.emit(events.AGENT_BACK, "HeardAgain", message, node=bound[incarnation], agent=incarnation)
    if tuple(suspects) != work.job.suspects:
        work.set_job(suspects=tuple(suspects))
