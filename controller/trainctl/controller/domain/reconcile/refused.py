"""A worker found a checkpoint damaged: it is given up for the next older one, for all ranks at once. Pure.

No rank chooses another checkpoint itself. The one that found the damage ends with that as its error; what is refused is
written down in the transaction that begins the next generation, whose record names the checkpoint that all load. So a
second failure, or another leader, finds the decision made; and each refusal leaves fewer to try. Where a checkpoint was
only read back nobody goes anywhere: the job trains on, and has one less to go back to.
"""

from __future__ import annotations

from dataclasses import replace

from trainctl.controller.domain import events
from trainctl.controller.domain.conditions import CHECKPOINT_STALE, with_condition
from trainctl.controller.domain.events import EventDraft
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
        assert fault.error is not None
        who = f"worker {fault.slot} on {work.slot(fault.slot).node}"
        work.job, told = refused(work.job, bad, work.now_s, found=fault.error.message, who=who, slot=fault.slot)
        work.events.append(told)
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


def refused(
    state: JobState,
    bad: CheckpointRef,
    now_s: float,
    *,
    found: str,
    who: str,
    slot: int | None = None,
    goes_back: bool = True,
) -> tuple[JobState, EventDraft]:
    """The job without a checkpoint of its own, and the event that says so.

    Args:
        state: of the job, which has ``bad``.
        bad: the checkpoint.
        now_s: Unix seconds.
        found: what is wrong with it.
        who: found that.
        slot: of the worker who did; None: it was no worker.
        goes_back: the job needs another one now; else only should it lose its state.
    """
    before = sources(state)
    was_newest = bool(before) and before[-1].uri == bad.uri
    figures, resume = state.checkpoint_figures, state.resume
    older = tuple(ref for ref in state.resume_older if ref.uri != bad.uri)
    if resume is not None and resume.uri == bad.uri:
        resume, older = (older[0], older[1:]) if older else (None, ())
    changed = replace(
        state,
        resume=resume,
        resume_older=older,
        checkpoints=tuple(ref for ref in state.checkpoints if ref.uri != bad.uri),
        refused=(*state.refused, RefusedCheckpoint(ref=bad, reason=found, at_s=now_s))[-REFUSED_KEPT:],
        checkpoint_figures=replace(figures, refused=figures.refused + 1),
    )
    left = sources(changed)
    instead = left[-1] if left else None
    lost = max(0, bad.step - instead.step) if instead is not None and was_newest else 0
    onward = "no other is left"
    if instead is not None:
        costs = f", which costs {format_count(lost, 'step')} more" if lost else ""
        costs += "" if goes_back or not lost else " should the job go back"
        onward = f"the newest one left is of step {instead.step}: {instead.uri}{costs}"
    message = f"checkpoint of step {bad.step} is refused: {bad.uri}; {who} found: {found}; {onward}"
    by = {"slot": slot} if slot is not None else {}
    fields = {"step": bad.step, "lineage": bad.lineage, "attempt": bad.attempt, **by, "lost_steps": lost}
    if instead is not None:
        fields |= {"instead_step": instead.step}
    texts = {key: str(value) for key, value in fields.items()}
    told = EventDraft(type=events.CHECKPOINT_REJECTED, reason="Damaged", message=message, fields=texts)
    return with_condition(changed, CHECKPOINT_STALE, True, now_s, reason="Damaged", message=message), told


def refused_lines(state: JobState) -> str:
    """All that were refused, for the failure of a job that has none left."""
    return "".join(f"\n  step {r.ref.step}, attempt {r.ref.attempt}: {r.reason}" for r in state.refused)
