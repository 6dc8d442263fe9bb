"""The engine in one place: what a session calls to save and load.

A save by all ranks::

    assignment = assign(replicated(state.shapes(), [rank_holder(r) for r in range(world_size)]))   # same on all ranks
    report = writer.save_part(attempt, writer=rank, state=state, assigned=assignment[rank_holder(rank)])
    ref = writer.seal(attempt, state=state, parts=all_reports, parent=previous)                    # one rank
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet

from trainctl.checkpoint.attempts import Attempt, storage_errors
from trainctl.checkpoint.catalog import inspect, newest, resolve
from trainctl.checkpoint.loading import load
from trainctl.checkpoint.manifest.names import attempt_id
from trainctl.checkpoint.manifest.records import PartReport
from trainctl.checkpoint.retention import remove_attempt, retain
from trainctl.checkpoint.saving import MAX_FILE_BYTES, EntryData, Runs, assign, live_data, nothing, unseen, write_part
from trainctl.checkpoint.sealing import seal
from trainctl.checkpoint.state import LocalState
from trainctl.checkpoint.storage.opening import open_storage
from trainctl.core.records.generation import CheckpointRef
from trainctl.core.system.faults import FaultPlan

__all__ = ["Attempt", "CheckpointWriter", "PartReport", "assign", "attempt_id", "inspect", "load", "newest", "resolve"]


class CheckpointWriter:
    """Saves a job's state under one URI.

    Args:
        uri: where.
        faults: armed fault points.
        max_file_bytes: size of one data file, at most.
    """

    def __init__(self, uri: str, *, faults: FaultPlan, max_file_bytes: int = MAX_FILE_BYTES) -> None:
        self._storage = open_storage(uri)
        self._faults = faults
        self._max_file_bytes = max_file_bytes

    def save_part(self, attempt: Attempt, *, writer: int, state: LocalState, assigned: Runs) -> PartReport:
        """Writes this rank's share of the state; it is durable on return. The tensors must not change meanwhile.

        Raises:
            CheckpointError: the storage refused; this rank's files are removed again.
        """
        data = live_data(state, assigned, max_entry_bytes=self._max_file_bytes)
        return self.write_part(attempt, writer=writer, data=data)

    def write_part(
        self,
        attempt: Attempt,
        *,
        writer: int,
        data: EntryData,
        alive: Callable[[], None] = nothing,
        confirm: Callable[[], None] = nothing,
        wrote: Callable[[int], None] = unseen,
    ) -> PartReport:
        """As ``saving.write_part``."""
        return write_part(
            self._storage,
            attempt,
            writer=writer,
            data=data,
            faults=self._faults,
            alive=alive,
            confirm=confirm,
            wrote=wrote,
            max_file_bytes=self._max_file_bytes,
        )

    def seal(
        self, attempt: Attempt, *, state: LocalState, parts: Sequence[PartReport], parent: CheckpointRef | None
    ) -> CheckpointRef:
        """Completes the attempt; called by one rank, once all parts are reported.

        Raises:
            CheckpointError: parts are missing, or the storage refused: discard the attempt.
            FencedError: somebody else completed it.
        """
        return seal(self._storage, attempt, state=state, parts=parts, parent=parent, faults=self._faults)

    def discard(self, attempt: Attempt) -> None:
        """Removes what a failed save left. Call it when no writer of the attempt writes any more.

        Raises:
            CheckpointError: the storage refused.
        """
        with storage_errors(f"discarding {attempt}"):
            remove_attempt(self._storage, attempt.folder)

    def retain(self, *, job: str, keep: int, protect: AbstractSet[str] = frozenset()) -> tuple[str, ...]:
        """Removes old checkpoints of the job; see ``retention.retain``."""
        return retain(self._storage.uri, job=job, keep=keep, protect=protect)
