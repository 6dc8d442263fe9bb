"""Which checkpoints a job may still go back to: its workers remove none of these, and nothing that is newer. Pure.

Nobody is told before the transaction that made the newest of them current is durable; and whatever becomes current
after that is newer. So a worker that acts on a list of long ago removes nothing that is needed now.
"""

from __future__ import annotations

from trainctl.controller.domain.job_state import JobState
from trainctl.core.records.generation import CheckpointRef


def being_loaded(state: JobState) -> tuple[CheckpointRef, ...]:
    """What the members load: the target of a roll-back, and what a generation begins with until all train in it."""
    records = (island.record for island in state.islands if not island.entered)
    wanted = [state.rollback.checkpoint if state.rollback else None, *(r.checkpoint for r in records if r is not None)]
    return tuple(ref for ref in wanted if ref is not None)


def kept_checkpoints(state: JobState) -> tuple[str, ...]:
    """The attempts, as ``WorkerDesired.kept_checkpoints``; empty while no checkpoint is current."""
    if not state.checkpoints:
        return ()
    loaded = dict.fromkeys(ref.attempt for ref in being_loaded(state) if ref not in state.checkpoints)
    return (*loaded, *(ref.attempt for ref in state.checkpoints))
