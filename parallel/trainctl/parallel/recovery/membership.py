"""Being a member of a generation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from trainctl.core.errors import InternalError
from trainctl.core.records.generation import GenerationRecord
from trainctl.core.records.worker import LoadReport
from trainctl.parallel.collectives.port import Group


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """What a worker has once it entered a generation.

    Attributes:
        record: the decision that it carried out.
        group: the ranks of the generation.
        evaluated: a member knows that the target step was evaluated.
        rebuild_s: seconds that building the group took.
        restore_s: seconds that obtaining the state took.
        received_bytes: bytes received, by source.
        applied_open_step: it applied the target step from its retained gradients.
        load: how all ranks came by a checkpoint, on rank 0.
        figures: of steps up to the target, on a rank that held nothing of its own (``StepFigures`` on the wire).
    """

    record: GenerationRecord
    group: Group
    evaluated: bool = False
    rebuild_s: float = 0.0
    restore_s: float = 0.0
    received_bytes: dict[str, int] = field(default_factory=dict[str, int])
    applied_open_step: bool = False
    figures: tuple[Any, ...] = ()
    load: LoadReport | None = None


def rank_of(record: GenerationRecord, *, slot: int, incarnation: int) -> int:
    """The rank of a worker in the generation.

    Raises:
        InternalError: it is no member.
    """
    for member in record.members:
        if member.slot == slot and member.incarnation == incarnation:
            return member.global_rank
    raise InternalError(
        f"slot {slot}, incarnation {incarnation} is no member of generation {record.generation} of {record.island}"
    )
