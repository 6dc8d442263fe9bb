"""A worker found a checkpoint damaged: it is given up for the next older one, for all ranks at once. Pure.

No rank chooses another checkpoint itself. The one that found the damage ends with that as its error; what is refused is
written down in the transaction that begins the next generation, whose record names the checkpoint that all load. So a
second failure, or another leader, finds the decision made; and each refusal leaves fewer to try.
"""

from __future__ import annotations

from dataclasses import replace

from trainctl.controller.domain import events
from trainctl.controller.domain.conditions import CHECKPOINT_STALE, with_condition
from trainctl.controller.domain.job_records import RefusedCheckpoint
from trainctl.controller.domain.job_state import REFUSED_KEPT, JobState
from trainctl.controller.domain.reconcile.fault import Fault
from trainctl.controller.domain.reconcile.work import Work
from trainctl.core.errors import CheckpointError, DamagedCheckpointError
from trainctl.core.records.generation import CheckpointRef
from trainctl.core.units import format_count


def is_refused(state: JobState, uri: str) -> bool:
    """Whether a worker found this checkpoint damaged."""
    return any(refused.ref.uri == uri for refused in state.refused)


def sources(state: JobState) -> tuple[CheckpointRef, ...]:
    """What the job can go back to, oldest first."""
    return tuple(ref for ref in (*reversed(state.resume_older), state.resume, *state.checkpoints) if ref is not None)


def refuse_checkpoint(work: Work, fault: Fault) -> bool:
    """Gives up the checkpoint that the worker found damaged, unless another rank said so before it.

    Returns:
        Whether it is one of the job's. Of any other nothing is given up.
    """
    bad = _checkpoint_of(work, fault)
    if bad is not None and not is_refused(work.job, bad.uri):
        _refuse(work, fault, bad)
    return bad is not None


def _checkpoint_of(work: Work, fault: Fault) -> CheckpointRef | None:
    error, record = fault.error, work.island.record
    if error is None or error.code not in (DamagedCheckpointError.code, CheckpointError.code):
        return None
    if error.checkpoint:
        known = (*sources(work.job), *(refused.ref for refused in work.job.refused))
        return next((ref for ref in known if ref.uri == error.checkpoint), None)
    # A worker of an older version does not say which: it means what the record told it to load.
    if record is None or fault.generation not in (0, record.generation):
        return None
    return record.checkpoint


def _refuse(work: Work, fault: Fault, bad: CheckpointRef) -> None:
    before = sources(work.job)
    error = fault.error
    assert error is not None
    refused = RefusedCheckpoint(ref=bad, reason=error.message, at_s=work.now_s)
    older, resume, figures = work.job.resume_older, work.job.resume, work.job.checkpoint_figures
    older = tuple(ref for ref in older if ref.uri != bad.uri)
    if resume is not None and resume.uri == bad.uri:
        resume, older = (older[0], older[1:]) if older else (None, ())
    work.set_job(
        resume=resume,
        resume_older=older,
        checkpoints=tuple(ref for ref in work.job.checkpoints if ref.uri != bad.uri),
        refused=(*work.job.refused, refused)[-REFUSED_KEPT:],
        checkpoint_figures=replace(figures, refused=figures.refused + 1),
    )
    _tell(work, fault, bad, was_newest=bool(before) and before[-1].uri == bad.uri)


def _tell(work: Work, fault: Fault, bad: CheckpointRef, *, was_newest: bool) -> None:
    left = sources(work.job)
    instead = left[-1] if left else None
    lost = max(0, bad.step - instead.step) if instead is not None and was_newest else 0
    onward = "no other is left"
    if instead is not None:
        costs = f", which costs {format_count(lost, 'step')} more" if lost else ""
        onward = f"the newest one left is of step {instead.step}: {instead.uri}{costs}"
    error = fault.error
    found = error.message if error is not None else fault.reason
    slot = work.slot(fault.slot)
    who = f"worker {fault.slot} on {slot.node}"
    message = f"checkpoint of step {bad.step} is refused: {bad.uri}; {who} found: {found}; {onward}"
    fields = {"step": bad.step, "lineage": bad.lineage, "attempt": bad.attempt, "slot": fault.slot, "lost_steps": lost}
    if instead is not None:
        fields |= {"instead_step": instead.step}
    work.emit(events.CHECKPOINT_REJECTED, "Damaged", message, **fields)
    work.job = with_condition(work.job, CHECKPOINT_STALE, True, work.now_s, reason="Damaged", message=message)


def refused_lines(state: JobState) -> str:
    """All that were refused, for the failure of a job that has none left."""
    return "".join(f"\n  step {r.ref.step}, attempt {r.ref.attempt}: {r.reason}" for r in state.refused)
