"""Which checkpoints a job may still go back to: its workers remove none of these, and nothing that is newer. Pure.

Nobody is told before the transaction that made the newest of them current is durable; and whatever becomes current
after that is newer. So a worker that acts on a list of long ago removes nothing that is needed now.

Where but one is to be kept, those before it stay in the list until a worker has read every byte of it: that files are
there at full size says nothing of their bits, and there would be nothing else to go back to. The oldest of the list
that nobody has pinned was read so, or is the first of all; the next one is read now. A job that saves faster than that
has one more, the newest, and what comes between is left out.
"""

from __future__ import annotations

from collections.abc import Sequence

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


def listed(state: JobState, known: Sequence[CheckpointRef]) -> tuple[CheckpointRef, ...]:
    """Which checkpoints the job has, now that the last of ``known``, which are oldest first, has become current."""
    keep = max(1, state.spec.spec.checkpoint.keep.last)
    if keep > 1:
        stay = set(range(len(known) - keep, len(known)))
    else:
        base = _base(state, known)
        stay = {base, base + 1, len(known) - 1}
    return tuple(ref for index, ref in enumerate(known) if index in stay or ref.uri in state.pinned)


def to_read_back(state: JobState) -> str:
    """The attempt that rank 0 is to read, as ``WorkerDesired.read_back``; empty if none waits for that."""
    base = _base(state, state.checkpoints)
    if state.spec.spec.checkpoint.keep.last > 1 or base + 1 >= len(state.checkpoints):
        return ""
    return state.checkpoints[base + 1].attempt


def _base(state: JobState, known: Sequence[CheckpointRef]) -> int:
    """The place of the oldest one that nobody has pinned."""
    return next((index for index, ref in enumerate(known) if ref.uri not in state.pinned), len(known))
