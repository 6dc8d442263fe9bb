"""Reports of checkpoints."""

from __future__ import annotations

from trainctl.controller.domain.job_state import JobState
from trainctl.core.records.generation import CheckpointRef
from trainctl.core.records.worker import CheckpointReport


def saved(state: JobState, step: int, *, age_s: float, error: str = "") -> CheckpointReport:
    record = state.sole_island.record
    assert record is not None
    ref = CheckpointRef(uri=f"mem://{step}", step=step, lineage=record.lineage, attempt="a", manifest_sha256="0")
    return CheckpointReport(
        job_uid=state.uid, island="island-0", generation=record.generation, step=step, lineage=record.lineage,
        ref=None if error else ref, error=error, age_s=age_s,
    )  # fmt: skip
