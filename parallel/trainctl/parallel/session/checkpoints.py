"""Checkpoints at a step boundary: all ranks write their part, one seals, everybody learns how it went."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from trainctl.checkpoint.engine import Attempt, CheckpointWriter, PartReport, assign, attempt_id
from trainctl.checkpoint.layout.key import StateVersion
from trainctl.checkpoint.layout.layout import Layout, rank_holder, replicated
from trainctl.checkpoint.state import LocalState
from trainctl.core.codec import from_wire, to_wire
from trainctl.core.errors import TrainctlError
from trainctl.core.records.generation import CheckpointRef, GenerationRecord
from trainctl.core.records.spec import CheckpointSpec
from trainctl.core.records.worker import CheckpointReport
from trainctl.core.system.faults import FaultPlan
from trainctl.parallel.collectives.gather import gather_json
from trainctl.parallel.collectives.port import Group
from trainctl.parallel.collectives.wait import Waiter
from trainctl.parallel.recovery.layouts import gathered_layout
from trainctl.parallel.replica.replica import Replica

_SEALER = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoints:
    """Where and when a job saves.

    Attributes:
        spec: interval and retention.
        uri: folder that the job saves to.
        faults: armed fault points.
    """

    spec: CheckpointSpec
    uri: str
    faults: FaultPlan

    @classmethod
    def of_job(cls, spec: CheckpointSpec, workdir: str, faults: FaultPlan) -> Checkpoints | None:
        """Saves to ``spec.uri``, or under the job's work folder; None where there is neither."""
        uri = spec.uri or (f"{workdir}/checkpoints" if workdir else "")
        return cls(spec=spec, uri=uri, faults=faults) if uri else None

    def due(self, step: int, steps: int) -> bool:
        """Whether the state after ``step`` of ``steps`` is saved."""
        interval = self.spec.interval_steps
        return step > 0 and (step == steps or (interval > 0 and step % interval == 0))

    def save(
        self,
        replica: Replica,
        record: GenerationRecord,
        group: Group,
        *,
        waiter: Waiter,
        report: Callable[[CheckpointReport], None],
    ) -> None:
        """Saves the state. What the storage refuses ends the attempt, not the training; rank 0 reports either.

        Raises:
            Interrupted, CollectiveError: as ``Waiter.wait``; the attempt is left behind and never becomes complete.
        """
        began_s = time.monotonic()
        save = _Save(self, replica, record, group, alive=waiter.touch)
        layout = save.layout(waiter)
        parts = gather_json(group, save.write_part(layout), waiter=waiter, what="collecting the checkpoint's parts")
        sealed = gather_json(group, save.seal(parts), waiter=waiter, what="sealing the checkpoint")[_SEALER]
        if sealed["ref"] is not None:
            replica.checkpoint = from_wire(CheckpointRef, sealed["ref"])
        if group.rank == _SEALER:
            report(
                CheckpointReport(
                    job_uid=record.job_uid,
                    island=record.island,
                    generation=record.generation,
                    step=replica.applied_step,
                    lineage=replica.lineage,
                    ref=replica.checkpoint if sealed["ref"] is not None else None,
                    error=sealed["error"],
                    seconds=time.monotonic() - began_s,
                    size_bytes=sealed["bytes"],
                )
            )
            save.retain(self.spec.keep.last)


class _Save:
    """One attempt."""

    def __init__(
        self,
        checkpoints: Checkpoints,
        replica: Replica,
        record: GenerationRecord,
        group: Group,
        *,
        alive: Callable[[], None],
    ) -> None:
        self._alive = alive
        self._replica = replica
        self._group = group
        self._checkpoints = checkpoints
        self._state: LocalState = replica.state(StateVersion(replica.lineage, replica.applied_step))
        self._attempt = Attempt(
            job=record.job_uid,
            step=replica.applied_step,
            lineage=replica.lineage,
            epoch=record.epoch,
            attempt=attempt_id(record.store_prefix, replica.applied_step),
        )

    def _writer(self) -> CheckpointWriter:
        """Made where it is used, since opening the storage can fail, too."""
        return CheckpointWriter(self._checkpoints.uri, faults=self._checkpoints.faults, alive=self._alive)

    def layout(self, waiter: Waiter) -> Layout:
        """Who holds what: everybody everything, or what the ranks say."""
        if not self._replica.sharded:
            return replicated(self._state.shapes(), [rank_holder(rank) for rank in range(self._group.size)])
        return gathered_layout(self._group, self._state, waiter=waiter)

    def write_part(self, layout: Layout) -> dict[str, Any]:
        """This rank's part; what went wrong instead of it."""
        assigned = assign(layout)[rank_holder(self._group.rank)]
        try:
            part = self._writer().save_part(
                self._attempt, writer=self._group.rank, state=self._state, assigned=assigned
            )
        except (TrainctlError, OSError) as error:
            return {"part": None, "error": f"rank {self._group.rank}: {error}"}
        return {"part": to_wire(part), "error": ""}

    def seal(self, said: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """On rank 0: completes the attempt if all parts are there, else removes it."""
        if self._group.rank != _SEALER:
            return {}
        errors = [rank["error"] for rank in said if rank["error"]]
        if not errors:
            parts = [from_wire(PartReport, rank["part"]) for rank in said]
            try:
                ref = self._writer().seal(
                    self._attempt, state=self._state, parts=parts, parent=self._replica.checkpoint
                )
            except (TrainctlError, OSError) as error:
                errors.append(f"rank {self._group.rank}: {error}")
            else:
                return {"ref": to_wire(ref), "error": "", "bytes": sum(part.data_bytes for part in parts)}
        self._discard(errors)
        return {"ref": None, "error": "; ".join(errors), "bytes": 0}

    def _discard(self, errors: list[str]) -> None:
        try:
            self._writer().discard(self._attempt)
        except (TrainctlError, OSError) as error:
            errors.append(f"and what was written could not be removed: {error}")

    def retain(self, keep: int) -> None:
        """On rank 0: removes old checkpoints; one that stays for once does no harm."""
        protect = {self._replica.checkpoint.attempt} if self._replica.checkpoint else set()
        try:
            self._writer().retain(job=self._attempt.job, keep=keep, protect=frozenset(protect))
        except (TrainctlError, OSError):
            return
