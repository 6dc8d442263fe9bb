"""What rank 0 found when it read a checkpoint back: those before it may go now, or it is refused. Pure.

Only the generation that is committed has a say: who was replaced may look at what lies elsewhere, or lay there long
ago. Its rank 0 is told what to read until it has said so.
"""

from __future__ import annotations

from dataclasses import replace

from trainctl.controller.domain import events
from trainctl.controller.domain.events import EventDraft
from trainctl.controller.domain.job_state import JobState
from trainctl.controller.domain.reconcile.refused import refused
from trainctl.controller.domain.reconcile.result import Reconciliation
from trainctl.core.records.worker import CheckpointReport
from trainctl.core.units import format_duration


def observe_read_back(state: JobState, report: CheckpointReport, now_s: float) -> Reconciliation:
    """Takes in what a look at every byte of a checkpoint found. Repeating it has no second effect.

    Args:
        state: of the job.
        report: with ``read_back``.
        now_s: Unix seconds.
    """
    record = state.sole_island.record
    known = {ref.uri: index for index, ref in enumerate(state.checkpoints)}
    if report.ref is None or report.ref.uri not in known or record is None or report.generation != record.generation:
        return Reconciliation(state=state)
    index = known[report.ref.uri]
    ref = state.checkpoints[index]
    if report.error:
        slot, node = record.members[0].slot, record.members[0].node
        who = f"worker {slot} on {node}, which read it back,"
        changed, told = refused(state, ref, now_s, found=report.error, who=who, slot=slot, goes_back=False)
        return Reconciliation(state=changed, events=(told,))
    gone = [old for old in state.checkpoints[:index] if old.uri not in state.pinned]
    if not gone:
        return Reconciliation(state=state)
    took = format_duration(report.seconds)
    steps = " and ".join(str(old.step) for old in gone)
    message = (
        f"checkpoint of step {ref.step} was read back in {took} and is what was saved: {ref.uri}; step {steps} goes"
    )
    fields = {"step": str(ref.step), "lineage": str(ref.lineage), "generation": str(report.generation)}
    told = EventDraft(type=events.CHECKPOINT_READ_BACK, reason="Whole", message=message, fields=fields)
    left = tuple(old for old in state.checkpoints if old not in gone)
    return Reconciliation(state=replace(state, checkpoints=left), events=(told,))
