"""Whether a checkpoint that somebody completed may become the job's current one. Pure.

Whoever was replaced (a frozen worker that wakes up, a node that was cut off) can still complete what it had begun, and
say so. That counts as little as if it had never been said.

The epoch is not looked at. That of an attempt is the epoch of the leader that committed its generation: a leader that
was deposed commits none, since its transactions are refused, nor can it carry out this very decision; and a new leader
alone changes no generation, so what that completes is as good as before.
"""

from __future__ import annotations

from trainctl.controller.domain.job_state import JobState
from trainctl.controller.domain.reconcile.refused import is_refused
from trainctl.core.records.generation import CheckpointRef, GenerationRecord
from trainctl.core.records.worker import CheckpointReport


def fenced(state: JobState, report: CheckpointReport) -> tuple[str, str] | None:
    """Why a complete checkpoint does not become current: a word and a sentence; None where it may.

    Args:
        state: of the job.
        report: with the checkpoint.
    """
    ref, record = report.ref, state.sole_island.record
    if ref is None:
        return None
    what = f"checkpoint of step {ref.step}"
    if is_refused(state, ref.uri):
        return "Damaged", f"{what} was found damaged, so it is not made current: {ref.uri}"
    if record is None or report.lineage != record.lineage:
        return "OldLineage", f"{what} belongs to lineage {report.lineage}, which was rolled back"
    if not _speaks_for(record, report, ref):
        now = f"generation {record.generation} has taken its place and goes on after step {record.target_step}"
        return "OldGeneration", f"{what} was completed for generation {report.generation}; {now}"
    if state.rollback is not None and ref.step > state.rollback.checkpoint.step:
        back = state.rollback.checkpoint.step
        return "RolledBack", f"{what} is newer than step {back}, which it goes back to"
    newest = state.checkpoints[-1] if state.checkpoints else None
    if newest is not None and (ref.lineage, ref.step) <= (newest.lineage, newest.step):
        return "NotNewer", f"{what} is not newer than the current one of step {newest.step}"
    return None


def _speaks_for(record: GenerationRecord, report: CheckpointReport, ref: CheckpointRef) -> bool:
    """Whether the worker that completed it is a member.

    It may have done so after the members were called to the next generation: all of them had written their parts by
    then, so they were at its step or beyond, and the record stands on it.
    """
    if report.generation == record.generation:
        return True
    stayed = any(member.incarnation == record.reporter for member in record.members)
    return report.generation == record.predecessor and stayed and ref.step <= record.target_step
