"""A fault as data: what reconcile concluded about one slot, before anything is done about it."""

from __future__ import annotations

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
    """

    slot: int
    kind: FaultKind
    reason: str
    at_s: float
    exit_code: int | None = None
    error: WorkerError | None = None
    generation: int = 0
