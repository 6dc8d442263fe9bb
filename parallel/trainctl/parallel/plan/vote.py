"""The vote: what each rank says about a step, and the one outcome that every rank folds out of it.

A record crosses the wire as the same few 8-byte words on every rank, so one all-gather of raw bytes carries it exactly.
Source: design section 5 ("No further collective comes before the optimizer").
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntFlag

from trainctl.core.errors import InternalError, PreconditionError
from trainctl.core.records.step import Outcome, StepAction
from trainctl.parallel.plan.digest import add_digests

_FIXED = struct.Struct("<5qdQ4q")


class VoteFlag(IntFlag):
    """What a rank answers with yes or no."""

    NONE = 0
    """No to all."""
    OK = 1
    """All micro-batches dealt to the rank went through forward and backward."""
    NON_FINITE = 2
    """The rank's loss, or its slice of the reduced gradient, has an infinity or a NaN."""
    STOP = 4
    """The rank was told to stop: all stop together after this step."""
    SAVE_ON_STOP = 8
    """The rank was told to save a checkpoint before it stops, or is held."""
    HOLD = 16
    """The rank was told to wait at the next step boundary: all wait together after this step."""
    SAVE_IN_PLACE = 32
    """The rank has no memory for a copy of the state: while anybody says so, all wait together for every save."""
    SAVE_BY_TIME = 64
    """The rank was told how long it is from one save to the next: while everybody says so, nobody counts steps."""
    SAVE_NOW = 128
    """By the rank's clock that time is over."""
    SNAPSHOT_BY_TIME = 256
    """As ``SAVE_BY_TIME``, of snapshots in the memory of the nodes."""
    SNAPSHOT_NOW = 512
    """As ``SAVE_NOW``, of snapshots in the memory of the nodes."""


@dataclass(frozen=True, slots=True)
class Saved:
    """How far a rank is with the checkpoints that were begun in its generation.

    Attributes:
        written: of how many its part is durable, or has failed.
        sealed: how many are complete, or have failed.
    """

    written: int = 0
    sealed: int = 0

    @property
    def counts(self) -> tuple[int, int]:
        """Both, as they cross the wire."""
        return self.written, self.sealed


@dataclass(frozen=True, slots=True, kw_only=True)
class VoteRecord:
    """What one rank says about one step.

    Attributes:
        generation: ``g`` the rank works in.
        lineage: lineage of its state.
        step: the step voted on.
        flags: see ``VoteFlag``.
        tokens: targets in its micro-batches.
        loss_sum: summed loss (nats) over them.
        sample_digest: digest of its sample ids.
        squared_norms: per parameter group, squared norm of the *summed* gradient over the elements this rank owns.
        saved: how far the rank is with saving.
        snapshots: how far it is with snapshots in the memory of nodes.
    """

    generation: int
    lineage: int
    step: int
    flags: VoteFlag
    tokens: int
    loss_sum: float
    sample_digest: int
    squared_norms: tuple[float, ...]
    saved: Saved = Saved()
    snapshots: Saved = Saved()

    def pack(self) -> bytes:
        """The record as ``packed_size(len(squared_norms))`` bytes."""
        head = _FIXED.pack(
            self.generation,
            self.lineage,
            self.step,
            self.flags,
            self.tokens,
            self.loss_sum,
            self.sample_digest,
            *self.saved.counts,
            *self.snapshots.counts,
        )
        return head + struct.pack(f"<{len(self.squared_norms)}d", *self.squared_norms)


def packed_size(num_groups: int) -> int:
    """Bytes of a packed record of a model with ``num_groups`` parameter groups."""
    return _FIXED.size + 8 * num_groups


def unpack(data: bytes) -> VoteRecord:
    """Reads what ``VoteRecord.pack`` made."""
    generation, lineage, step, flags, tokens, loss_sum, digest, *counts = _FIXED.unpack_from(data)
    norms = struct.unpack_from(f"<{(len(data) - _FIXED.size) // 8}d", data, _FIXED.size)
    return VoteRecord(
        generation=generation,
        lineage=lineage,
        step=step,
        flags=VoteFlag(flags),
        tokens=tokens,
        loss_sum=loss_sum,
        sample_digest=digest,
        squared_norms=norms,
        saved=Saved(*counts[:2]),
        snapshots=Saved(*counts[2:]),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ballot:
    """What every rank knows of a step before the vote.

    Attributes:
        generation: ``g``.
        lineage: lineage of the state.
        step: the step voted on.
        learning_rate: scheduled for it.
        clip_norm: bound of the mean gradient's norm; 0 does not clip.
        cursor: samples consumed once the step is committed.
        sample_digest: digest of the global batch.
    """

    generation: int
    lineage: int
    step: int
    learning_rate: float
    clip_norm: float
    cursor: int
    sample_digest: int


def fold(records: Sequence[VoteRecord], ballot: Ballot) -> Outcome:
    """The outcome of a vote: the same bits on every rank, since all fold the same records in rank order.

    Raises:
        InternalError: a rank voted on something else, or the samples are not those of the step.
        PreconditionError: no rank gave a single gradient: the loop goes past the session.
    """
    _check(records, ballot)
    tokens = sum(record.tokens for record in records)
    norm = math.sqrt(sum(sum(record.squared_norms) for record in records)) / max(tokens, 1)
    reason = _reason_to_skip(records, tokens)
    return Outcome(
        generation=ballot.generation,
        lineage=ballot.lineage,
        step=ballot.step,
        action=StepAction.SKIP if reason else StepAction.APPLY,
        gradient_scale=0.0 if reason else _clip_factor(norm, ballot.clip_norm) / tokens,
        learning_rate=ballot.learning_rate,
        loss_sum=sum(record.loss_sum for record in records),
        tokens=tokens,
        gradient_norm=norm,
        cursor=ballot.cursor,
        sample_digest=ballot.sample_digest,
        reason=reason,
    )


@dataclass(frozen=True, slots=True)
class Agreement:
    """What all ranks know of each other after a vote, beside its outcome.

    Attributes:
        flags: those that any rank raised.
        saved: how far the last of them is with saving.
        snapshots: how far the last of them is with snapshots.
        by_time: all ranks save by time.
        snapshots_by_time: all ranks make snapshots by time.
    """

    flags: VoteFlag = VoteFlag.NONE
    saved: Saved = Saved()
    snapshots: Saved = Saved()
    by_time: bool = False
    snapshots_by_time: bool = False

    @property
    def save_due(self) -> bool | None:
        """Whether it is time to save; None: that is counted in steps."""
        return VoteFlag.SAVE_NOW in self.flags if self.by_time else None

    @property
    def snapshot_due(self) -> bool | None:
        """Whether it is time for a snapshot; None: that is counted in steps."""
        return VoteFlag.SNAPSHOT_NOW in self.flags if self.snapshots_by_time else None


def agree(records: Sequence[VoteRecord]) -> Agreement:
    """The agreement of a vote, the same on every rank."""
    flags, of_all = VoteFlag(0), ~VoteFlag(0)
    for record in records:
        flags |= record.flags
        of_all &= record.flags
    return Agreement(
        flags,
        least([record.saved for record in records]),
        least([record.snapshots for record in records]),
        by_time=VoteFlag.SAVE_BY_TIME in of_all,
        snapshots_by_time=VoteFlag.SNAPSHOT_BY_TIME in of_all,
    )


def least(saved: Sequence[Saved]) -> Saved:
    """How far the last rank is."""
    return Saved(min(one.written for one in saved), min(one.sealed for one in saved))


def _clip_factor(norm: float, clip_norm: float) -> float:
    return min(1.0, clip_norm / (norm + 1e-6)) if clip_norm > 0 else 1.0


def _reason_to_skip(records: Sequence[VoteRecord], tokens: int) -> str:
    if not any(VoteFlag.OK in record.flags or record.tokens for record in records):
        raise PreconditionError(
            "no rank called step.backward in this step",
            hint="call step.backward(loss_sum, targets) once for each micro-batch, and not loss.backward()",
        )
    incomplete = [rank for rank, record in enumerate(records) if VoteFlag.OK not in record.flags]
    if incomplete:
        return f"micro-batches were left out on rank {', '.join(map(str, incomplete))}"
    non_finite = [rank for rank, record in enumerate(records) if VoteFlag.NON_FINITE in record.flags]
    if non_finite:
        return f"loss or gradient is not finite on rank {', '.join(map(str, non_finite))}"
    return "" if tokens else "no targets in the global batch"


def _check(records: Sequence[VoteRecord], ballot: Ballot) -> None:
    want = (ballot.generation, ballot.lineage, ballot.step)
    for rank, record in enumerate(records):
        found = (record.generation, record.lineage, record.step)
        if found != want:
            raise InternalError(
                f"vote: expected (generation, lineage, step) {want} from rank {rank}, found {found}; "
                "the ranks are not at the same step"
            )
    if all(VoteFlag.OK in record.flags for record in records):
        digest = add_digests(record.sample_digest for record in records)
        if digest != ballot.sample_digest:
            raise InternalError(
                f"vote on step {ballot.step}: expected sample digest {ballot.sample_digest:016x}, found {digest:016x}; "
                "a sample was left out or counted twice"
            )
