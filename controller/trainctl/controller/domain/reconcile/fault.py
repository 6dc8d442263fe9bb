"""A fault as data: what reconcile concluded about one slot, before anything is done about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from trainctl.core.records.worker import WorkerError


class FaultKind(StrEnum):
    """What happened to a worker."""

    EXITED = "exited"
    """Its exit is confirmed."""
    AGENT_LOST = "agent_lost"
    """Its agent is lost, and the worker with it."""
    STUCK = "stuck"
    """It is alive but does not do its part: it is condemned, and its exit must be confirmed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One conclusion.

    Attributes:
        slot: where.
        kind: what.
        reason: words that continue "worker 3 ...".
        at_s: when it happened, Unix seconds.
        exit_code: of an exit.
        error: exception that caused the exit.
        generation: committed generation that the worker trained in.
        frozen: it showed no sign of life since ``at_s``: the whole job hung for so long.
    """

    slot: int
    kind: FaultKind
    reason: str
    at_s: float
    exit_code: int | None = None
    error: WorkerError | None = None
    generation: int = 0
    frozen: bool = False


def describe(faults: Sequence[Fault]) -> str:
    """What happened, in one line; workers that went down with one agent are named together."""
    parts: dict[tuple[FaultKind, str], list[int]] = {}
    for fault in faults:
        own = fault.reason if fault.kind is FaultKind.AGENT_LOST else f"worker {fault.slot} {fault.reason}"
        parts.setdefault((fault.kind, own), []).append(fault.slot)
    return "; ".join(
        _lost_together(slots, what) if kind is FaultKind.AGENT_LOST else what for (kind, what), slots in parts.items()
    )


def _lost_together(slots: Sequence[int], reason: str) -> str:
    whose = reason if len(slots) == 1 else reason.replace("its agent", "their agent", 1)
    return f"{are_lost(slots)}: {whose}"


def are_lost(slots: Sequence[int]) -> str:
    """``worker 2 is lost``, ``workers 2 and 3 are lost``."""
    if len(slots) == 1:
        return f"worker {slots[0]} is lost"
    return f"workers {', '.join(map(str, slots[:-1]))} and {slots[-1]} are lost"
