"""After the commit: members enter the generation, the first new step ends the recovery, the last one ends the job."""

from __future__ import annotations

from dataclasses import replace

from trainctl.controller.domain import events
from trainctl.controller.domain.reconcile.lifecycle import set_phase
from trainctl.controller.domain.reconcile.recoveries import finish_recovery, is_new_step
from trainctl.controller.domain.reconcile.work import Work
from trainctl.controller.domain.states import JobPhase, SlotState
from trainctl.core.records.worker import WorkerPhase


def enter(work: Work) -> None:
    """Notes that all members train in the committed generation, and that its first step is there."""
    record = work.island.record
    if record is None or work.island.proposal is not None:
        return
    seen = [work.observed(work.slot(m.slot)) for m in record.members]
    if not work.island.entered:
        trains = (WorkerPhase.RUNNING, WorkerPhase.FINISHED)
        if not all(w is not None and w.generation == record.generation and w.phase in trains for w in seen):
            return
        _entered(work)
    at = [w.progress for w in seen if w is not None]
    stepped = any(is_new_step(record, generation=p.generation, step=p.step) for p in at)
    over = all(work.slot(m.slot).state is SlotState.FINISHED for m in record.members)
    running = work.job.spec.spec.runs_command  # a command has no steps to be seen: that it runs everywhere is all
    if work.island.marks is not None and (stepped or over or running):
        work.job, work.island, drafts = finish_recovery(work.job, work.island, work.now_s)
        work.events.extend(drafts)


def _entered(work: Work) -> None:
    record = work.island.record
    assert record is not None
    work.set_island(entered=True)
    if work.island.marks is not None:
        work.set_island(marks=replace(work.island.marks, entered_s=work.now_s))
    runs_command = work.job.spec.spec.runs_command
    everybody = "the worker trains" if record.world_size == 1 else f"all {record.world_size} workers train"
    message = f"{everybody} in generation {record.generation} after step {record.target_step}"
    if runs_command:
        where = "its rank" if record.world_size == 1 else f"all {record.world_size} ranks"
        message = f"the command runs on {where} in generation {record.generation}"
    work.emit(events.GENERATION_ENTERED, "Entered", message, generation=record.generation)
    set_phase(work, JobPhase.RUNNING, "CommandRuns" if runs_command else "Training", message)


def complete(work: Work) -> bool:
    """Ends the job in good order when its last step is done and saved; whether it did."""
    record = work.island.record
    if record is None or work.job.rollback is not None:
        return False
    slots = [work.slot(m.slot) for m in record.members]
    finished = [s for s in slots if s.state is SlotState.FINISHED]
    if work.job.spec.spec.runs_command:
        return _command_done(work, ended=len(finished), ranks=len(slots))
    steps = work.job.steps
    saved = bool(work.job.checkpoints) and work.job.checkpoints[-1].step >= steps
    if not finished or (len(finished) < len(slots) and not saved):
        return False
    set_phase(work, JobPhase.COMPLETING, "Finished", f"step {steps} of {steps} is done; workers are stopped")
    return True


def _command_done(work: Work, *, ended: int, ranks: int) -> bool:
    if ended < ranks or work.island.proposal is not None:
        return False
    set_phase(work, JobPhase.COMPLETING, "Finished", f"the command ended with exit code 0 on all ranks ({ranks})")
    return True
