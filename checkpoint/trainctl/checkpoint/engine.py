"""The engine in one place: what a session calls to save and load.

A save by all ranks::

    assignment = assign(replicated(state.shapes(), [rank_holder(r) for r in range(world_size)]))   # same on all ranks
    data = live_data(state, assignment[rank_holder(rank)])
    report = writer.write_part(attempt, writer=rank, data=data, shapes=state.shapes())
    ref = writer.seal(attempt, state=state, parts=all_reports, parent=previous)                    # one rank
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet

from trainctl.checkpoint.callbacks import nothing, unseen
from trainctl.checkpoint.kept.catalog import inspect, newest, resolve
from trainctl.checkpoint.kept.read_back import read_back
from trainctl.checkpoint.kept.retention import remove_attempt, retain
from trainctl.checkpoint.layout.key import StateKey
from trainctl.checkpoint.layout.region import Shape
from trainctl.checkpoint.load.loading import load
from trainctl.checkpoint.manifest.names import ROOT_MANIFEST, attempt_id
from trainctl.checkpoint.manifest.records import PartReport
from trainctl.checkpoint.save.attempts import Attempt
from trainctl.checkpoint.save.data_file import MAX_FILE_BYTES
from trainctl.checkpoint.save.description import Described
from trainctl.checkpoint.save.model_files import CHUNKED, HF, LAYOUTS, ModelFiles
from trainctl.checkpoint.save.part_writing import write_part
from trainctl.checkpoint.save.saving import EntryData, as_runs, assign, blocks_of
from trainctl.checkpoint.save.sealing import seal
from trainctl.checkpoint.storage.errors import storage_errors
from trainctl.checkpoint.storage.opening import open_storage
from trainctl.core.errors import CheckpointError, UsageError
from trainctl.core.records.generation import CheckpointRef
from trainctl.core.system.faults import FaultPlan

__all__ = ["Attempt", "CheckpointWriter", "PartReport", "assign", "attempt_id", "inspect", "load", "newest", "resolve"]


class CheckpointWriter:
    """Saves a job's state under one URI.

    Args:
        uri: where.
        faults: armed fault points.
        max_file_bytes: size of one data file, at most.
        layout: ``chunked``, or ``hf``: parameters and buffers lie in files that transformers loads as they are.

    Raises:
        CheckpointError: the storage cannot write into the middle of a file, which layout ``hf`` takes.
        UsageError: there is no such layout.
    """

    def __init__(
        self, uri: str, *, faults: FaultPlan, max_file_bytes: int = MAX_FILE_BYTES, layout: str = CHUNKED
    ) -> None:
        self._storage = open_storage(uri)
        if layout not in LAYOUTS:
            raise UsageError(f"expected layout {' or '.join(LAYOUTS)}, found {layout!r}")
        self._in_place = layout == HF
        if self._in_place and not self._storage.ranged_writes:
            raise CheckpointError(
                f"{uri}: expected a folder on disk for layout hf, where all ranks write into one file, found a storage "
                "that takes whole files only",
                hint="use layout: chunked; `trainctl checkpoints export` makes a Hugging Face folder of a checkpoint",
            )
        self._faults = faults
        self._max_file_bytes = max_file_bytes

    def write_part(
        self,
        attempt: Attempt,
        *,
        writer: int,
        data: EntryData,
        shapes: Mapping[StateKey, Shape],
        alive: Callable[[], None] = nothing,
        confirm: Callable[[], None] = nothing,
        wrote: Callable[[int], None] = unseen,
    ) -> PartReport:
        """Writes one rank's share of the state; it is durable on return.

        Args:
            attempt: which save.
            writer: the rank.
            data: what to write; its memory stays as it is until then.
            shapes: of the whole state, whatever part of it the rank holds.
            alive: called for every block.
            confirm: called before the part counts; what it raises ends the part.
            wrote: told the size of every block that the storage took.

        Raises:
            CheckpointError: the storage refused; this rank's files are removed again.
        """
        model_files = self._model_files(attempt, shapes)
        lying = data if model_files is None else dict(as_runs(data, model_files))
        return write_part(
            self._storage,
            attempt,
            writer=writer,
            entries=lying,
            shapes=shapes,
            blocks=lambda entry: blocks_of(lying[entry]),
            faults=self._faults,
            alive=alive,
            confirm=confirm,
            wrote=wrote,
            max_file_bytes=self._max_file_bytes,
            model_files=model_files,
        )

    def seal(
        self,
        attempt: Attempt,
        *,
        state: Described,
        parts: Sequence[PartReport],
        parent: CheckpointRef | None,
        here: Sequence[PartReport] | None = None,
    ) -> CheckpointRef:
        """Completes the attempt; called by one rank, once all parts are reported. The arguments are ``sealing.seal``'s.

        Raises:
            CheckpointError: parts are missing, or the storage refused: discard the attempt.
            FencedError: somebody else completed it.
        """
        files = self._model_files(attempt, state.shapes())
        return seal(
            self._storage,
            attempt,
            state=state,
            parts=parts,
            parent=parent,
            faults=self._faults,
            model_files=files,
            here=here,
        )

    def discard(self, attempt: Attempt) -> None:
        """Removes what a failed save left. Call it when no writer of the attempt writes any more.

        One that has a root manifest stays: whoever completed it, even if the storage told them that it failed, somebody
        may load it by now. ``retain`` takes it when it is old.

        Raises:
            CheckpointError: the storage refused.
        """
        with storage_errors(f"discarding {attempt}"):
            if self._storage.size(f"{attempt.folder}/{ROOT_MANIFEST}") is None:
                remove_attempt(self._storage, attempt.folder)

    def retain(
        self,
        *,
        job: str,
        keep: int,
        current: str = "",
        protect: AbstractSet[str] = frozenset(),
        check: Callable[[CheckpointRef], None] = read_back,
    ) -> tuple[str, ...]:
        """Removes old checkpoints of the job; see ``retention.retain``."""
        return retain(self._storage.uri, job=job, keep=keep, current=current, protect=protect, check=check)

    def _model_files(self, attempt: Attempt, shapes: Mapping[StateKey, Shape]) -> ModelFiles | None:
        return ModelFiles(attempt, shapes, max_file_bytes=self._max_file_bytes) if self._in_place else None
